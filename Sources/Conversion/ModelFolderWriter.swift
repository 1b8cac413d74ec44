import Checkpoints
import Files
import MPOCheckpoints

/// The weights of a model folder being written as the source of an MPO checkpoint had them: every component in its own
/// file or shards.
struct ModelFolderWriter: DenseCheckpointWriter {
  private let writers: [any DenseCheckpointWriter]
  /// For each tensor its writer, and its name there.
  private let places: [TensorName: (writer: Int, name: String)]

  /// - Parameter folder: the folder to write, which has the companions of the source already.
  init(folder: String, restoring source: MPOCheckpoint) throws {
    let manifest = source.manifest
    let tensors = manifest.contents.tensors.map(\.info)
    var writers: [any DenseCheckpointWriter] = []
    var places: [TensorName: (writer: Int, name: String)] = [:]
    guard let components = manifest.source?.components else {
      self.writers = [
        try ShardedSafetensorsWriter(folder: folder, tensors: tensors, metadata: manifest.source?.metadata ?? [:])
      ]
      self.places = Dictionary(tensors.map { ($0.key, (0, $0.name)) }, uniquingKeysWith: { first, _ in first })
      return
    }
    var start = 0
    for component in components {
      let own = tensors[start..<start + component.tensorCount].map { tensor in
        TensorInfo(
          name: String(decoding: tensor.name.utf8.dropFirst(component.prefix.utf8.count), as: UTF8.self),
          dtype: tensor.dtype, shape: tensor.shape, orientation: tensor.orientation)
      }
      for (tensor, whole) in zip(own, tensors[start...]) { places[whole.key] = (writers.count, tensor.name) }
      start += component.tensorCount
      writers.append(try Self.writer(of: component, own, to: folder, source))
    }
    self.writers = writers
    self.places = places
  }

  func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws {
    guard let place = places[TensorName(name)] else {
      throw CheckpointError.malformed(file: name, tensor: name, reason: "it is written but was not declared")
    }
    try writers[place.writer].write(bytes, to: place.name)
  }

  func finish() throws { for writer in writers { try writer.finish() } }

  private static func writer(
    of component: CheckpointManifest.Component, _ tensors: [TensorInfo], to folder: String, _ source: MPOCheckpoint
  ) throws -> any DenseCheckpointWriter {
    let path = folder + "/" + component.file
    try makeFolders(for: component.file, in: folder)
    if component.format == .hdf5 {
      if let skeleton = component.skeleton {
        return try HDF5Writer(
          skeleton: source.path + "/" + skeleton, output: path, tensors: tensors,
          asKerasArchive: skeleton.hasSuffix(".keras"))
      }
      if !component.file.hasSuffix(".keras") {
        return try HDF5Writer(creating: path, tensors: tensors, metadata: component.metadata)
      }
      return try ShardedSafetensorsWriter(folder: folder, tensors: tensors, metadata: component.metadata)
    }
    let isIndex = component.file.hasSuffix(".json")
    guard isIndex, try FileStatus(at: path) != nil else {
      // An index that is not among the companions: the shards have the names that it would give them.
      let stem = String(component.file.split(separator: "/").last ?? "model").prefix(while: { $0 != "." })
      return isIndex
        ? try ShardedSafetensorsWriter(
          folder: parentFolder(of: path), stem: String(stem), tensors: tensors, metadata: component.metadata)
        : try SafetensorsWriter(path: path, tensors: tensors, metadata: component.metadata)
    }
    let shards = try WeightMap(readingIndexAt: path).singleFiles(ofIndexAt: path)
    return try ShardedSafetensorsWriter(
      folder: parentFolder(of: path), tensors: tensors, metadata: component.metadata
    ) { tensor in
      guard let shard = shards[tensor.key], !pathComponents(of: shard.text).contains(".."),
        shard.text.utf8.first != UInt8(ascii: "/")
      else {
        throw ConversionError.notRestorable(
          path: source.path, tensor: tensor.name,
          reason: "the index '\(escaped(component.file))' of the source names no file for it; convert the model again")
      }
      try makeFolders(for: shard.text, in: parentFolder(of: path))
      return shard.text
    }
  }
}
