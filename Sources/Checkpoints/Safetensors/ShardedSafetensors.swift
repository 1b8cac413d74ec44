import Files

/// A checkpoint split over several safetensors files, with the index (`*.safetensors.index.json`) that says which
/// tensor is in which.
public struct ShardedSafetensors: DenseCheckpoint {
  public let path: String
  /// The shards in the order of their names, and in each the tensors in the order of their data.
  public let tensors: [TensorInfo]
  /// What the shards say; where they differ, the first one's word.
  public let metadata: CheckpointMetadata
  public let files: [String]
  public let notices: [String]

  private let shards: [SafetensorsFile]
  /// Index into `tensors` and into `shards`, by name.
  private let places: [TensorName: (tensor: Int, shard: Int)]

  /// `safetensors`.
  public var format: CheckpointFormat { .safetensors }

  /// Opens the index at `indexPath` and every shard it names. The index decides which tensors there are: what the shards
  /// have besides is ignored, and named in `notices`.
  /// - Throws: `CheckpointError` for an index that is not valid, or that does not fit its shards; `FileError` where one
  ///   can't be read.
  public init(indexPath: String) throws { try self.init(indexPath: indexPath, path: indexPath, followingLinks: false) }

  /// - Parameters:
  ///   - path: The path that the user gave.
  ///   - followingLinks: Whether shards may be links that leave the folder.
  init(indexPath: String, path: String, followingLinks: Bool) throws {
    let weightMap = try WeightMap(readingIndexAt: indexPath).singleFiles(ofIndexAt: indexPath)
    let location = try ModelFolder(path: parentFolder(of: indexPath), followingLinks: followingLinks)

    let shardNames = Set(weightMap.values).sorted()
    var tensors: [TensorInfo] = []
    var shards: [SafetensorsFile] = []
    var places: [TensorName: (tensor: Int, shard: Int)] = [:]
    var metadata: CheckpointMetadata = [:]
    var ignored: [String] = []
    for (number, shardName) in shardNames.enumerated() {
      let shard = try SafetensorsFile(path: location.checkedPath(of: shardName.text, namedBy: indexPath))
      for tensor in shard.tensors {
        guard weightMap[tensor.key] == shardName else {
          ignored.append("'\(escaped(tensor.name))' of '\(escaped(shardName.text))'")
          continue
        }
        places[tensor.key] = (tensors.count, number)
        tensors.append(tensor)
      }
      metadata.fill(from: shard.metadata)
      shards.append(shard)
    }
    if places.count < weightMap.count,
      let missing = weightMap.filter({ places[$0.key] == nil }).min(by: { $0.key < $1.key })
    {
      throw CheckpointError.malformed(
        file: indexPath, tensor: missing.key.text,
        reason: "the index places it in shard '\(escaped(missing.value.text))', which does not hold it")
    }
    self.path = path
    self.tensors = tensors
    self.shards = shards
    self.places = places
    self.metadata = metadata
    files = shards.map(\.path)
    notices =
      ignored.isEmpty
      ? []
      : [
        "the index does not place \(ignored.count == 1 ? "a tensor" : "\(ignored.count) tensors") where a shard has it, "
          + "which \(ignored.count == 1 ? "is" : "are") ignored: \(listed(ignored))"
      ]
  }

  public func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try shard(of: tensor).withBytes(of: tensor, body)
  }

  public func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try shard(of: tensor).withBytes(of: tensor, in: range, body)
  }

  public func tensor(named name: String) -> TensorInfo? { places[TensorName(name)].map { tensors[$0.tensor] } }

  private func shard(of tensor: TensorInfo) throws -> SafetensorsFile {
    guard let place = places[tensor.key] else { throw CheckpointError.noSuchTensor(tensor, in: path) }
    return shards[place.shard]
  }
}

/// The first of some names, and how many there are besides.
func listed(_ names: [String], limit: Int = 8) -> String {
  names.prefix(limit).joined(separator: ", ") + (names.count > limit ? " and \(names.count - limit) more" : "")
}
