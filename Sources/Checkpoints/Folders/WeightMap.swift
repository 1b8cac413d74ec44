import Files

/// The `weight_map` of an index: which files hold what it names. That are tensors for safetensors, groups of variables for
/// Keras.
package struct WeightMap: Sendable {
  /// By name, the files, paths relative to the index. A tensor is in one, a group may be in several.
  package let files: [TensorName: [TensorName]]

  /// - Throws: `CheckpointError` for what is no such index.
  package init(readingIndexAt path: String) throws { try self.init(of: MappedFile(path: path)) }

  /// - Parameter name: What messages call the index; the path of the file where it is nil.
  init(of file: MappedFile, name: String? = nil) throws {
    let path = name ?? file.path
    func malformed(_ tensor: String?, _ reason: String) -> CheckpointError {
      .malformed(file: path, tensor: tensor, reason: reason)
    }
    guard file.byteCount > 0 else { throw malformed(nil, "the index is empty") }
    try ForeignFormat.refuse(file, name: path, except: .json)
    guard file.byteCount <= SafetensorsFile.maximumHeaderLength else {
      throw malformed(nil, "the index of \(file.byteCount) bytes is larger than any model needs")
    }
    var weightMap: [TensorName: [TensorName]]?
    do {
      try file.withBytes(in: 0..<file.byteCount) { bytes in
        try JSONReader.read(bytes) { reader in
          guard try reader.nextKind() == .object else { throw malformed(nil, "the index is not a JSON object") }
          try reader.readObject { reader, name in
            guard name == "weight_map" else { return try reader.skipValue() }
            guard try reader.nextKind() == .object else { throw malformed(nil, "its weight_map is not an object") }
            var map: [TensorName: [TensorName]] = [:]
            try reader.readObject { reader, name in
              map[TensorName(name)] = try Self.readFiles(&reader) {
                malformed(name, "the weight_map does not map it to a file name")
              }
            }
            weightMap = map
          }
        }
      }
    } catch let error as JSONError {
      throw malformed(nil, "the index is not valid: \(error)")
    }
    guard let weightMap else { throw malformed(nil, "it has no weight_map, which every index of a sharded model has") }
    if let pickle = weightMap.values.joined().filter({ WeightsName.isPickle($0.text) }).min() {
      throw CheckpointError.notACheckpoint(
        path: path,
        reason: "is the index of pickles ('\(escaped(pickle.text))') as torch.save writes them; "
          + ForeignFormat.pickleRemedy)
    }
    files = weightMap
  }

  /// The only file that holds each of the tensors.
  /// - Throws: `CheckpointError` for one in several.
  package func singleFiles(ofIndexAt path: String) throws -> [TensorName: TensorName] {
    if let tensor = files.filter({ $0.value.count != 1 }).keys.min() {
      throw CheckpointError.malformed(
        file: path, tensor: tensor.text, reason: "the weight_map does not map it to a file name")
    }
    return files.mapValues { $0[0] }
  }

  private static func readFiles(_ reader: inout JSONReader, orThrow failure: () -> CheckpointError) throws
    -> [TensorName]
  {
    func file(_ reader: inout JSONReader) throws -> TensorName {
      guard try reader.nextKind() == .string else { throw failure() }
      return TensorName(withoutCurrentFolders(try reader.readString()))
    }
    guard try reader.nextKind() == .array else { return [try file(&reader)] }
    var files: [TensorName] = []
    try reader.readArray { reader, _ in files.append(try file(&reader)) }
    return files
  }
}

/// A relative path without components `.`; any other as it is.
private func withoutCurrentFolders(_ path: String) -> String {
  guard path.utf8.first != UInt8(ascii: "/") else { return path }
  let parts = pathComponents(of: path)
  return parts.contains(".") && parts.contains { $0 != "." } ? parts.filter { $0 != "." }.joined(separator: "/") : path
}
