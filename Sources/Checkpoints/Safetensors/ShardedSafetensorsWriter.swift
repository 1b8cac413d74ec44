import Files

/// A checkpoint being written to as many safetensors files as its size needs, named and indexed as Hugging Face's
/// libraries do it.
///
/// One shard is `<stem>.safetensors`, without an index. Several are `<stem>-00001-of-00003.safetensors` …, with
/// `<stem>.safetensors.index.json`.
public final class ShardedSafetensorsWriter: DenseCheckpointWriter {
  /// The names of the shards and of the index, relative to the folder.
  public let files: [String]

  private let folder: String
  private let shards: [SafetensorsWriter]
  /// Index into `shards`, by tensor.
  private let places: [TensorName: Int]
  /// The text of the index, when there are several shards.
  private let index: String?
  private let indexName: String

  /// Creates the shards in `folder`, which must be there.
  ///
  /// - Parameters:
  ///   - folder: Where the shards are created.
  ///   - stem: The part of the names in front of the number, `model` for weights.
  ///   - tensors: The tensors in the order of their data; each shard holds a run of them.
  ///   - metadata: The `__metadata__` of every shard.
  ///   - maximumShardBytes: A shard is closed before its tensors take more; a larger tensor has a shard of its own.
  /// - Throws: `CheckpointError` where names occur twice or a shape has no size; `FileError` where a shard can't be
  ///   written.
  public init(
    folder: String, stem: String = "model", tensors: [TensorInfo], metadata: CheckpointMetadata = [:],
    maximumShardBytes: Int = 5_000_000_000
  ) throws {
    var runs: [[TensorInfo]] = [[]]
    var runBytes = 0
    var total = 0
    var places: [TensorName: Int] = [:]
    for tensor in tensors {
      func malformed(_ reason: String) -> CheckpointError {
        .malformed(file: folder + "/" + stem, tensor: tensor.name, reason: reason)
      }
      let size = try tensor.checkedByteCount(orThrow: malformed)
      if !runs[runs.count - 1].isEmpty, size > maximumShardBytes - runBytes {
        runs.append([])
        runBytes = 0
      }
      runs[runs.count - 1].append(tensor)
      runBytes += size
      let (sum, overflows) = total.addingReportingOverflow(size)
      guard !overflows else { throw malformed("the files would be too large for any disk") }
      total = sum
      guard places.updateValue(runs.count - 1, forKey: tensor.key) == nil else {
        throw malformed("it is declared twice")
      }
    }

    let names = Self.names(of: runs.count, stem: stem)
    let indexName = "\(stem).safetensors.index.json"
    self.folder = folder
    self.places = places
    self.indexName = indexName
    if runs.count > 1 {
      files = names + [indexName]
      index = ShardedSafetensorsWriter.indexText(totalSize: total, places.mapValues { names[$0] })
    } else {
      files = names
      index = nil
    }
    shards = try zip(names, runs).map {
      try SafetensorsWriter(path: folder + "/" + $0, tensors: $1, metadata: metadata)
    }
  }

  /// Creates the shards that an index asks for, which is there already.
  ///
  /// - Parameters:
  ///   - folder: Where the shards are created.
  ///   - tensors: All tensors, in the order of their data.
  ///   - metadata: The metadata of each shard.
  ///   - shard: The name of the shard that a tensor goes into, in `folder`, whose folder must be there.
  /// - Throws: `CheckpointError` where names occur twice or a shape has no size; `FileError` where a shard can't be
  ///   written.
  public init(
    folder: String, tensors: [TensorInfo], metadata: CheckpointMetadata = [:], shard: (TensorInfo) throws -> String
  ) throws {
    var runs: [(name: String, tensors: [TensorInfo])] = []
    var numbers: [TensorName: Int] = [:]
    var places: [TensorName: Int] = [:]
    for tensor in tensors {
      let name = try shard(tensor)
      let number = numbers[TensorName(name)] ?? runs.count
      if number == runs.count { runs.append((name, [])) }
      numbers[TensorName(name)] = number
      runs[number].tensors.append(tensor)
      places[tensor.key] = number
    }
    self.folder = folder
    self.places = places
    files = runs.map(\.name)
    index = nil
    indexName = ""
    shards = try runs.map {
      try SafetensorsWriter(path: folder + "/" + $0.name, tensors: $0.tensors, metadata: metadata)
    }
  }

  /// Writes the bytes of a declared tensor to its shard; from any thread.
  /// - Throws: `CheckpointError` for a tensor that was not declared, and the errors of writing.
  public func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws {
    guard let shard = places[TensorName(name)] else {
      throw CheckpointError.malformed(file: folder, tensor: name, reason: "it is written but was not declared")
    }
    try shards[shard].write(bytes, to: name)
  }

  /// Flushes the shards and, where there are several, writes their index.
  /// - Throws: `CheckpointError` for a tensor that was not written, and the errors of writing.
  public func finish() throws {
    for shard in shards { try shard.finish() }
    guard let index else { return }
    var text = index
    try text.withUTF8 { try writeFile(UnsafeRawBufferPointer($0), to: folder + "/" + indexName) }
  }

  /// The names of so many shards.
  package static func names(of count: Int, stem: String) -> [String] {
    func padded(_ number: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
    return count == 1
      ? ["\(stem).safetensors"]
      : (0..<count).map { "\(stem)-\(padded($0 + 1))-of-\(padded(count)).safetensors" }
  }

  /// The index as Python's `json.dumps(index, indent=2, sort_keys=True)` writes it, and a newline.
  package static func indexText(totalSize: Int, _ weightMap: [TensorName: String]) -> String {
    let entries = weightMap.sorted { $0.key < $1.key }
      .map { "    \(jsonString($0.key.text, asciiOnly: true)): \(jsonString($0.value, asciiOnly: true))" }
    return """
      {
        "metadata": {
          "total_size": \(totalSize)
        },
        "weight_map": {
      \(entries.joined(separator: ",\n"))
        }
      }

      """
  }
}
