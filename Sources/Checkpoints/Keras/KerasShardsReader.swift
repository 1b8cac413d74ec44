import Files

/// Opens the index of sharded Keras weights (`model.weights.json`), as `save_weights` writes it with a `max_shard_size`:
/// HDF5 files, each with the variables of some layers, read as one checkpoint.
enum KerasShardsReader: CheckpointReader {
  static let format = CheckpointFormat.hdf5

  private static let indexEnding = ".weights.json"

  static let places: [ModelFolder.Place] = [.file("model.weights.json"), .only([indexEnding])]

  static func recognizes(_ file: CheckpointFile) -> Bool { false }

  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool {
    (foreign == .json || foreign == .lfsPointer) && file.path.hasSuffix(indexEnding)
  }

  /// - Throws: `CheckpointError` for a shard that is missing or lacks a layer that the index places in it.
  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint {
    if let foreign = ForeignFormat(head: file.head), foreign != .json {
      throw CheckpointError.notACheckpoint(path: file.path, reason: foreign.refusal)
    }
    let location = try ModelFolder(
      path: parentFolder(of: file.path), followingLinks: file.folder?.followsLinks ?? false)
    let layers = try readWeightMap(of: file)
    let names = Set(layers.values.joined()).sorted()
    guard !names.isEmpty else {
      throw CheckpointError.malformed(
        file: file.path, tensor: nil, reason: "the index of sharded Keras weights names no shard")
    }
    let components = try names.map { name in
      let path = try location.checkedPath(of: name.text, namedBy: file.path)
      let head = try CheckpointFile(path: path, givenPath: path).head
      if let foreign = ForeignFormat(head: head) {
        throw CheckpointError.notACheckpoint(path: path, reason: foreign.refusal)
      }
      return CheckpointComponent(file: name.text, checkpoint: try HDF5Checkpoint(path: path))
    }
    for (component, name) in zip(components, names) {
      let groups = Set(component.checkpoint.tensors.map { TensorName(parentFolder(of: $0.name)) })
      if let missing = layers.filter({ $0.value.contains(name) && !groups.contains($0.key) }).keys.min() {
        throw CheckpointError.malformed(
          file: file.path, tensor: missing.text,
          reason: "the index places it in shard '\(escaped(name.text))', which does not hold it")
      }
    }
    return try FolderCheckpoint(
      path: file.givenPath, folder: parentFolder(of: file.path), components: components,
      companions: [pathComponents(of: file.path).last ?? file.path], notices: [])
  }

  /// The shards that hold the variables of each group, whose path has no slash in front.
  private static func readWeightMap(of file: CheckpointFile) throws -> [TensorName: [TensorName]] {
    func malformed(_ reason: String) -> CheckpointError {
      .malformed(file: file.path, tensor: nil, reason: "the index of sharded Keras weights \(reason)")
    }
    guard file.contents.byteCount <= SafetensorsFile.maximumHeaderLength else { throw malformed("is too large") }
    var weightMap: [TensorName: [TensorName]]?
    do {
      try file.contents.withBytes(in: 0..<file.contents.byteCount) { bytes in
        try JSONReader.read(bytes) { reader in
          try reader.readObject { reader, name in
            guard name == "weight_map" else { return try reader.skipValue() }
            guard try reader.nextKind() == .object else { throw malformed("has a weight_map that is no object") }
            var map: [TensorName: [TensorName]] = [:]
            try reader.readObject { reader, group in
              let key = TensorName(group.hasPrefix("/") ? String(group.dropFirst()) : group)
              if try reader.nextKind() == .string {
                map[key] = [TensorName(try reader.readString())]
              } else {
                guard try reader.nextKind() == .array else {
                  throw malformed("maps '\(escaped(group))' to no file name")
                }
                try reader.readArray { reader, _ in
                  guard try reader.nextKind() == .string else {
                    throw malformed("maps '\(escaped(group))' to no file name")
                  }
                  map[key, default: []].append(TensorName(try reader.readString()))
                }
              }
            }
            weightMap = map
          }
        }
      }
    } catch let error as JSONError {
      throw malformed("is not valid: \(error)")
    }
    guard let weightMap else { throw malformed("has no weight_map") }
    return weightMap
  }
}
