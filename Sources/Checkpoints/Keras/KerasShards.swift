import Files

/// The index of sharded Keras weights (`model.weights.json`): which HDF5 files hold the variables of which groups.
struct KerasShards {
  /// The shards, in the order of their names.
  let names: [TensorName]
  private let index: String
  /// The shards of each group, whose path has no slash in front.
  private let groups: [TensorName: [TensorName]]

  /// - Parameter name: What messages call the index.
  /// - Throws: `CheckpointError` for what is no such index.
  init(index file: MappedFile, name: String) throws {
    index = name
    var groups: [TensorName: [TensorName]] = [:]
    for (group, shards) in try WeightMap(of: file, name: name).files {
      guard !shards.isEmpty else {
        throw CheckpointError.malformed(
          file: name, tensor: group.text, reason: "the weight_map does not map it to a file name")
      }
      let text = group.text
      let key = text.utf8.first == UInt8(ascii: "/") ? String(decoding: text.utf8.dropFirst(), as: UTF8.self) : text
      groups[TensorName(key), default: []] += shards
    }
    self.groups = groups
    names = Set(groups.values.joined()).sorted()
    guard !names.isEmpty else {
      throw CheckpointError.malformed(
        file: name, tensor: nil, reason: "the index of sharded Keras weights names no shard")
    }
  }

  /// Checks what the shards hold against the index.
  ///
  /// - Parameter tensors: those of each shard.
  /// - Throws: `CheckpointError` for a group that is not where the index places it, and for a tensor in two shards.
  func check(_ tensors: [[TensorInfo]]) throws {
    var owners: [TensorName: TensorName] = [:]
    for (shard, tensors) in zip(names, tensors) {
      for tensor in tensors {
        if let other = owners.updateValue(shard, forKey: tensor.key) {
          throw CheckpointError.malformed(
            file: index, tensor: tensor.name,
            reason:
              "it is in shard '\(escaped(other.text))' and in shard '\(escaped(shard.text))'; save the weights again")
        }
      }
      let present = Set(tensors.map { TensorName(parentFolder(of: $0.name)) })
      if let missing = groups.filter({ $0.value.contains(shard) && !present.contains($0.key) }).keys.min() {
        throw CheckpointError.malformed(
          file: index, tensor: missing.text,
          reason: "the index places it in shard '\(escaped(shard.text))', which does not hold it")
      }
    }
  }
}
