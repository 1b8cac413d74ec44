extension CheckpointFormat {
  /// A safetensors file, or several with an index.
  public static let safetensors = CheckpointFormat(rawValue: "safetensors")
}

/// Opens safetensors files, and the indices of sharded models.
enum SafetensorsReader: CheckpointReader {
  static let format = CheckpointFormat.safetensors

  static let places: [ModelFolder.Place] = [
    .file("model.safetensors"),
    .file("model.safetensors.index.json"),
    .only("*.safetensors.index.json", WeightsName.isSafetensorsIndex),
    .only(
      "*.safetensors", { $0.hasSuffix(".safetensors") },
      remedy: "pass the path of the one to open, or add their *.safetensors.index.json"),
  ]

  /// A header length below 2^32 and a brace: no other format that is known here has both.
  static func recognizes(_ file: CheckpointFile) -> Bool { recognizes(head: file.head) }

  static func recognizes(head: [UInt8]) -> Bool {
    head.count > 8 && head[4..<8].allSatisfy { $0 == 0 } && head[8] == UInt8(ascii: "{")
  }

  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool {
    switch foreign {
    case nil: file.path.hasSuffix(".safetensors")
    case .json, .lfsPointer: file.path.hasSuffix(".safetensors") || WeightsName.isIndex(path: file.path)
    default: false
    }
  }

  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint {
    if WeightsName.isIndex(path: file.path), !recognizes(file) {
      return try ShardedSafetensors(
        indexPath: file.path, path: file.givenPath, followingLinks: file.folder?.followsLinks ?? false)
    }
    return try SafetensorsFile(path: file.path)
  }
}
