import Files

/// Python code in a converted model folder, with which transformers loads it where `mpo_checkpoint` is not installed.
///
/// `auto_map` in `config.json` names it; transformers runs it when it is asked for with `trust_remote_code=True`. The file is a
/// companion: the manifest has its digest, and it goes along when the checkpoint is squeezed or merged. It is not restored.
package enum RemoteCode {
  package static let fileName = "mpo_remote_code.py"

  /// Why the model in a folder can't have the code; nil if it can.
  ///
  /// - Parameter folder: a model folder that has not been converted; nil for a single file.
  package static func obstacle(inFolder folder: String?) throws -> String? {
    let name = LoaderConfiguration.fileName
    guard let folder, try FileStatus(at: folder + "/" + name)?.kind == .file else {
      return "there is no \(name) beside the weights, which transformers needs"
    }
    let file = try MappedFile(path: folder + "/" + name)
    let (isAnnounceable, hasCode) = try file.withBytes(in: 0..<file.byteCount) {
      (LoaderConfiguration.announcing($0) != nil, LoaderConfiguration.hasCode($0))
    }
    if !isAnnounceable { return "\(name) is not the configuration of an unquantised transformers model" }
    return hasCode ? "\(name) has an 'auto_map': the model has Python code of its own" : nil
  }

  /// Adds the code to a checkpoint that is being made.
  ///
  /// - Parameters:
  ///   - code: the text of the file.
  ///   - folder: the checkpoint; its `config.json` announces the format.
  ///   - manifest: its manifest.
  /// - Returns: the manifest that it has then.
  package static func add(_ code: String, to folder: String, _ manifest: CheckpointManifest) throws
    -> CheckpointManifest
  {
    let configuration = LoaderConfiguration.fileName
    let path = folder + "/" + configuration
    let file = try MappedFile(path: path)
    guard let named = try file.withBytes(in: 0..<file.byteCount, { LoaderConfiguration.namingCode($0) }) else {
      throw MPOCheckpointError.file(path: path, reason: "is not the configuration of a converted model")
    }
    try named.withUnsafeBytes { try writeFile($0, to: path) }
    try Array(code.utf8).withUnsafeBytes { try writeFile($0, to: folder + "/" + fileName) }
    var companions = manifest.companions
    for index in companions.indices where companions[index].file == configuration {
      companions[index] = try FileFingerprint(ofFileAt: path, named: configuration)
    }
    companions.append(try FileFingerprint(ofFileAt: folder + "/" + fileName, named: fileName))
    let result = CheckpointManifest(
      generator: manifest.generator, source: manifest.source, shards: manifest.shards, companions: companions,
      conversion: manifest.conversion, squeeze: manifest.squeeze, contents: manifest.contents, part: manifest.part)
    try ManifestFile.encode(result).withUnsafeBytes {
      try writeFile($0, to: folder + "/" + CheckpointManifest.fileName)
    }
    return result
  }
}
