import Checkpoints
import Files
import Recipes

extension MPOCheckpointWriter {
  /// Writes a checkpoint whose shards are those of others under a second name: nothing of them is copied where the file system
  /// can name a file twice, and nothing is read but their headers.
  ///
  /// - Parameters:
  ///   - parts: checkpoints no two of which store the same array; together they store all of `contents`.
  ///   - contents: what the checkpoint says of its tensors, operators and cores.
  ///   - folder: an empty folder.
  ///   - generator: what the manifest says has written it.
  ///   - source: where the tensors came from.
  ///   - conversion: the recipe.
  ///   - companions: files of the first part.
  /// - Throws: `MPOCheckpointError` and `FileError`.
  public static func link(
    _ parts: [MPOCheckpoint], contents: CheckpointContents, to folder: String, generator: String,
    source: CheckpointManifest.Source?, conversion: ConversionRecipe?, companions: [Companion]
  ) throws -> CheckpointManifest {
    var linked: [(path: String, fingerprint: FileFingerprint, tensors: [TensorInfo])] = []
    for part in parts {
      for shard in part.manifest.shards {
        let path = part.path + "/" + shard.file
        let tensors = try openDenseCheckpoint(at: path).tensors
        // A part without any tensor has a shard for all that.
        if !tensors.isEmpty { linked.append((path, shard, tensors)) }
      }
    }
    let names = ShardedSafetensorsWriter.names(of: linked.count, stem: shardStem)
    var shards: [FileFingerprint] = []
    var places: [TensorName: String] = [:]
    for (shard, name) in zip(linked, names) {
      try linkFile(shard.path, as: folder + "/" + name)
      shards.append(FileFingerprint(file: name, bytes: shard.fingerprint.bytes, sha256: shard.fingerprint.sha256))
      for tensor in shard.tensors { places[tensor.key] = name }
    }
    var index: [FileFingerprint] = []
    if names.count > 1 {
      let total = linked.reduce(0) { $0 + $1.tensors.reduce(0) { $0 + $1.byteCount } }
      var text = ShardedSafetensorsWriter.indexText(totalSize: total, places)
      try text.withUTF8 { try writeFile(UnsafeRawBufferPointer($0), to: folder + "/" + indexName) }
      index = [try FileFingerprint(ofFileAt: folder + "/" + indexName, named: indexName)]
    }
    let carried = try carry(companions, from: parts.first?.path, to: folder, skeletons: source?.skeletons ?? [])
    let manifest = CheckpointManifest(
      generator: generator, source: source, shards: shards, companions: index + carried, conversion: conversion,
      contents: contents)
    try ManifestFile.encode(manifest).withUnsafeBytes {
      try writeFile($0, to: folder + "/" + CheckpointManifest.fileName)
    }
    return manifest
  }
}
