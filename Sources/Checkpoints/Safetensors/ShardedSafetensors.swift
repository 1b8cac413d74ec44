import Files

/// A checkpoint split over several safetensors files, with the index (`*.safetensors.index.json`) that says which
/// tensor is in which.
public struct ShardedSafetensors: DenseCheckpoint {
  public let path: String
  /// The shards in the order of their names, and in each the tensors in the order of their data.
  public let tensors: [TensorInfo]
  /// What the shards say; where they differ, the first one's word.
  public let metadata: [String: String]
  public let files: [String]
  public let notices: [String]

  private let shards: [SafetensorsFile]
  /// Index into `tensors` and into `shards`, by name.
  private let places: [TensorName: (tensor: Int, shard: Int)]

  public var format: CheckpointFormat { .safetensors }

  /// Opens the index at `indexPath` and every shard it names. The index decides which tensors there are: what the shards
  /// have besides is ignored, and named in `notices`.
  public init(indexPath: String) throws { try self.init(indexPath: indexPath, path: indexPath, followingLinks: false) }

  /// - Parameters:
  ///   - path: The path that the user gave.
  ///   - followingLinks: Whether shards may be links that leave the folder.
  init(indexPath: String, path: String, followingLinks: Bool) throws {
    let weightMap = try ShardedSafetensors.readWeightMap(at: indexPath)
    let location = try ModelFolder(path: parentFolder(of: indexPath), followingLinks: followingLinks)

    let shardNames = Set(weightMap.values).sorted()
    var tensors: [TensorInfo] = []
    var shards: [SafetensorsFile] = []
    var places: [TensorName: (tensor: Int, shard: Int)] = [:]
    var metadata: [String: String] = [:]
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
      metadata.merge(shard.metadata) { first, _ in first }
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

  /// Reads the index: which shard each tensor is in, a path relative to the index.
  package static func readWeightMap(at path: String) throws -> [TensorName: TensorName] {
    func malformed(_ tensor: String?, _ reason: String) -> CheckpointError {
      .malformed(file: path, tensor: tensor, reason: reason)
    }
    let file = try MappedFile(path: path)
    guard file.byteCount > 0 else { throw malformed(nil, "the index is empty") }
    let head = try file.withBytes(in: 0..<min(file.byteCount, 512)) { Array($0) }
    if let foreign = ForeignFormat(head: head), foreign != .json {
      throw CheckpointError.notACheckpoint(path: path, reason: foreign.refusal)
    }
    guard file.byteCount <= SafetensorsFile.maximumHeaderLength else {
      throw malformed(nil, "the index of \(file.byteCount) bytes is larger than any model needs")
    }
    var weightMap: [TensorName: TensorName]?
    do {
      try file.withBytes(in: 0..<file.byteCount) { bytes in
        try JSONReader.read(bytes) { reader in
          guard try reader.nextKind() == .object else { throw malformed(nil, "the index is not a JSON object") }
          try reader.readObject { reader, name in
            guard name == "weight_map" else { return try reader.skipValue() }
            guard try reader.nextKind() == .object else { throw malformed(nil, "its weight_map is not an object") }
            var map: [TensorName: TensorName] = [:]
            try reader.readObject { reader, tensor in
              guard try reader.nextKind() == .string else {
                throw malformed(tensor, "the weight_map does not map it to a file name")
              }
              let shard = try reader.readString()
              guard ![".bin", ".pt", ".pth"].contains(where: { shard.hasSuffix($0) }) else {
                throw CheckpointError.notACheckpoint(
                  path: path,
                  reason: "is the index of pickles ('\(escaped(shard))') as torch.save writes them; "
                    + ForeignFormat.pickleRemedy)
              }
              map[TensorName(tensor)] = TensorName(withoutCurrentFolders(shard))
            }
            weightMap = map
          }
        }
      }
    } catch let error as JSONError {
      throw malformed(nil, "the index is not valid: \(error)")
    }
    guard let weightMap else { throw malformed(nil, "it has no weight_map, which every index of a sharded model has") }
    return weightMap
  }
}

/// A relative path without components `.`; any other as it is.
private func withoutCurrentFolders(_ path: String) -> String {
  guard path.utf8.first != UInt8(ascii: "/") else { return path }
  let parts = pathComponents(of: path)
  return parts.contains(".") && parts.contains { $0 != "." } ? parts.filter { $0 != "." }.joined(separator: "/") : path
}

/// The first of some names, and how many there are besides.
func listed(_ names: [String], limit: Int = 8) -> String {
  names.prefix(limit).joined(separator: ", ") + (names.count > limit ? " and \(names.count - limit) more" : "")
}
