extension CheckpointFormat {
  public static let safetensors = CheckpointFormat(rawValue: "safetensors")
}

/// Opens safetensors files, and the indices of sharded models.
enum SafetensorsReader: CheckpointReader {
  static let format = CheckpointFormat.safetensors

  private static let indexEnding = ".index.json"

  static let places: [ModelFolder.Place] = [
    .file("model.safetensors"),
    .file("model.safetensors.index.json"),
    .only([".safetensors.index.json"]),
    .only(
      [".safetensors"], remedy: "pass the path of the one to open, or add their *.safetensors.index.json"),
  ]

  /// A header length below 2^32 and a brace: no other format that is known here has both.
  static func recognizes(_ file: CheckpointFile) -> Bool {
    file.head.count > 8 && file.head[4..<8].allSatisfy { $0 == 0 } && file.head[8] == UInt8(ascii: "{")
  }

  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool {
    switch foreign {
    case nil: file.path.hasSuffix(".safetensors")
    case .json: file.path.hasSuffix(".safetensors") || file.path.hasSuffix(indexEnding)
    default: false
    }
  }

  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint {
    if file.path.hasSuffix(indexEnding), !recognizes(file) {
      return try ShardedSafetensors(indexPath: file.path, path: file.givenPath, openedAs: file.folder)
    }
    return try SafetensorsFile(path: file.path, folder: file.folder?.path, companions: file.companions())
  }
}
