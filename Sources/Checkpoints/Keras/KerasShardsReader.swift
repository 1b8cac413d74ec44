import Files

/// Opens the index of sharded Keras weights (`model.weights.json`), as `save_weights` writes it with a `max_shard_size`:
/// HDF5 files, each with the variables of some layers, read as one checkpoint.
enum KerasShardsReader: CheckpointReader {
  static let format = CheckpointFormat.hdf5

  static let places: [ModelFolder.Place] = [
    .file("model" + WeightsName.kerasIndexEnding),
    .only("*" + WeightsName.kerasIndexEnding, WeightsName.isKerasIndex),
  ]

  static func recognizes(_ file: CheckpointFile) -> Bool { false }

  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool {
    (foreign == .json || foreign == .lfsPointer || foreign == .empty) && WeightsName.isKerasIndex(file.path)
  }

  /// - Throws: `CheckpointError` for a shard that is missing or lacks a layer that the index places in it.
  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint {
    let location = try ModelFolder(
      path: parentFolder(of: file.path), followingLinks: file.folder?.followsLinks ?? false)
    let shards = try KerasShards(index: file.contents, name: file.path)
    let components = try shards.names.map { name in
      let path = try location.checkedPath(of: name.text, namedBy: file.path)
      try ForeignFormat.refuse(MappedFile(path: path))
      return CheckpointComponent(file: name.text, checkpoint: try HDF5Checkpoint(path: path))
    }
    try shards.check(components.map(\.checkpoint.tensors))
    return try FolderCheckpoint(
      path: file.givenPath, folder: parentFolder(of: file.path), components: components,
      companions: [pathComponents(of: file.path).last ?? file.path], notices: [])
  }
}
