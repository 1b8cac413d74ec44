import Checkpoints
import Files
import FoundationEssentials
import TensorNetworks

/// An MPO checkpoint being written into a folder: all records are known when it is created, cores and dense tensors
/// arrive in any order and from any thread, the manifest comes last.
public struct MPOCheckpointWriter: Sendable {
  static let shardStem = "tensors"
  /// The index of the shards, where there are several.
  public static let indexName = shardStem + ".safetensors.index.json"

  private let folder: String
  private let maximumShardBytes: Int
  private let output: Output

  /// Where entries go to.
  private enum Output: Sendable {
    case shards(ShardedSafetensorsWriter)
    case packed(PackedShards)
  }

  /// - Parameters:
  ///   - folder: an empty folder.
  ///   - records: every tensor, in the order of the source.
  ///   - packs: whether entries that become smaller by it are packed.
  ///   - maximumShardBytes: a shard is closed before it would exceed this size.
  public init(
    folder: String, records: [TensorRecord], packs: Bool = false, maximumShardBytes: Int = 5_000_000_000
  ) throws {
    self.folder = folder
    for record in records {
      guard let mpo = record.mpo, !MPORecord.isWithinLimit(mpo.shape, bonds: mpo.bonds) else { continue }
      throw MPOCheckpointError.tensor(
        path: folder, tensor: record.name,
        reason: "its cores of \(mpo.parameterCount) elements are too few for a matrix of "
          + "\(mpo.shape.rows) × \(mpo.shape.columns): readers would refuse it; raise --min-bond, or --exclude it")
    }
    self.maximumShardBytes = maximumShardBytes
    let entries = records.flatMap(\.entries)
    if packs {
      output = .packed(try PackedShards(folder: folder, entries: entries))
    } else {
      output = .shards(try Self.shards(in: folder, entries: entries, maximumShardBytes: maximumShardBytes))
    }
  }

  /// A writer of shards with these entries.
  static func shards(
    in folder: String, entries: [TensorInfo], maximumShardBytes: Int
  ) throws -> ShardedSafetensorsWriter {
    // Wide types first, so that every entry is aligned to its elements.
    let ordered = entries.enumerated()
      .sorted { ($1.element.dtype.bitWidth, $0.offset) < ($0.element.dtype.bitWidth, $1.offset) }
      .map(\.element)
    return try ShardedSafetensorsWriter(
      folder: folder, stem: shardStem, tensors: ordered, metadata: ["format": "pt"],
      maximumShardBytes: maximumShardBytes)
  }

  private func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws {
    switch output {
    case .shards(let shards): try shards.write(bytes, to: name)
    case .packed(let shards): try shards.write(bytes, to: name)
    }
  }

  /// Writes the bytes of a tensor of kind dense.
  public func write(_ bytes: UnsafeRawBufferPointer, of record: TensorRecord) throws {
    try write(bytes, to: record.name)
  }

  /// Writes the entries that another checkpoint has of a tensor with the same record.
  public func copy(_ record: TensorRecord, from checkpoint: MPOCheckpoint) throws {
    for entry in record.entries { try checkpoint.withEntryBytes(of: entry) { try write($0, to: entry.name) } }
  }

  /// Rounds the cores of a tensor to their dtype, a quantised central one to bytes, and writes them.
  /// - Returns: the cores as they are stored, to measure the error on.
  /// - Throws: `MPOCheckpointError` when a value does not fit the dtype.
  public func write<Scalar: CheckpointScalar>(
    _ mpo: MPO<Scalar>, of record: TensorRecord
  ) throws -> MPO<Scalar> {
    let entries = record.entries
    let stored = try zip(entries, mpo.cores).map { entry, core in
      if entry.dtype == .i8, let scales = entries.last { return try writeQuantized(core, to: entry, scales) }
      return try core.elements.withUnsafeBufferPointer { elements in
        do {
          return try Scalar.withRounded(elements, to: entry.dtype) { bytes in
            try write(bytes, to: entry.name)
            if entry.dtype == Scalar.dtype { return core }
            return Core(
              shape: core.shape, elements: try Scalar.withElements(bytes, of: entry.dtype) { Array($0) })
          }
        } catch let error as ElementError {
          throw MPOCheckpointError.tensor(
            path: folder, tensor: entry.name, reason: "\(error); use --dtype f32, or --exclude the tensor")
        }
      }
    }
    return MPO(shape: mpo.shape, cores: stored)
  }

  private func writeQuantized<Scalar: CheckpointScalar>(
    _ core: Core<Scalar>, to entry: TensorInfo, _ scales: TensorInfo
  ) throws -> Core<Scalar> {
    guard let quantized = QuantizedCore(core, scaleShape: scales.shape) else {
      throw MPOCheckpointError.tensor(
        path: folder, tensor: entry.name,
        reason:
          "has an element that is not finite or too large for a scale; leave out --central int8, or --exclude the "
          + "tensor")
    }
    try quantized.bytes.withUnsafeBytes { try write($0, to: entry.name) }
    try quantized.scales.withUnsafeBytes { try write($0, to: scales.name) }
    return quantized.core()
  }

  /// Flushes the shards, copies the companions and writes the manifest.
  ///
  /// - Parameters:
  ///   - records: the records of the initialiser with their errors filled in.
  ///   - companions: files of the model folder to carry over, relative to `source`.
  ///   - part: which part of a conversion this is, when it is one.
  /// - Returns: the manifest, whose records say what is packed.
  @discardableResult
  public func finish(
    records: [TensorRecord], generator: String, source: Manifest.Source?, options: [String: String]?,
    companions: [String] = [], from sourceFolder: String? = nil, part: Manifest.Part? = nil
  ) throws -> Manifest {
    let shardFiles: [String]
    var packed: [String: PackedEntry] = [:]
    switch output {
    case .shards(let shards):
      try shards.finish()
      shardFiles = shards.files
    case .packed(let shards): (shardFiles, packed) = try shards.finish(maximumShardBytes: maximumShardBytes)
    }
    var carried: [FileFingerprint] = []
    if let skeleton = source?.skeleton {
      carried.append(try FileFingerprint(ofFileAt: folder + "/" + skeleton, named: skeleton))
    }
    if let sourceFolder {
      for companion in companions where !shardFiles.contains(companion) && companion != Manifest.fileName {
        try copyCompanion(companion, from: sourceFolder, to: folder)
        carried.append(try FileFingerprint(ofFileAt: folder + "/" + companion, named: companion))
      }
    }
    let files = try shardFiles.map { try FileFingerprint(ofFileAt: folder + "/" + $0, named: $0) }
    let manifest = Manifest(
      generator: generator, source: source, shards: files.filter { $0.file != Self.indexName },
      companions: files.filter { $0.file == Self.indexName } + carried, options: options,
      tensors: records.map { record in
        var record = record
        record.packed = record.entries.compactMap { packed[$0.name] }
        return record
      }, part: part)
    try ManifestFile.encode(manifest).withUnsafeBytes { try writeFile($0, to: folder + "/" + Manifest.fileName) }
    return manifest
  }
}
