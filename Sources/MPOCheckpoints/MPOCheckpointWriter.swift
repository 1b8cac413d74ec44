import Checkpoints
import FoundationEssentials
import TensorNetworks

/// An MPO checkpoint being written into a folder: all records are known when it is created, cores and dense tensors
/// arrive in any order and from any thread, the manifest comes last.
public struct MPOCheckpointWriter: Sendable {
  static let shardStem = "tensors"
  /// The index of the shards, where there are several.
  public static let indexName = shardStem + ".safetensors.index.json"

  private let folder: String
  private let shards: ShardedSafetensorsWriter

  /// - Parameters:
  ///   - folder: an empty folder.
  ///   - records: every tensor, in the order of the source.
  ///   - maximumShardBytes: a shard is closed before it would exceed this size.
  public init(
    folder: String, records: [TensorRecord], maximumShardBytes: Int = 5_000_000_000
  ) throws {
    self.folder = folder
    for record in records {
      guard let mpo = record.mpo, !MPORecord.isWithinLimit(mpo.shape, bonds: mpo.bonds) else { continue }
      throw MPOCheckpointError.tensor(
        path: folder, tensor: record.name,
        reason: "its cores of \(mpo.parameterCount) elements are too few for a matrix of "
          + "\(mpo.shape.rows) × \(mpo.shape.columns): readers would refuse it; raise --min-bond, or --exclude it")
    }
    // Wide types first, so that every entry is aligned to its elements.
    let entries = records.flatMap(\.entries).enumerated()
      .sorted { ($1.element.dtype.bitWidth, $0.offset) < ($0.element.dtype.bitWidth, $1.offset) }
      .map(\.element)
    shards = try ShardedSafetensorsWriter(
      folder: folder, stem: Self.shardStem, tensors: entries, metadata: ["format": "pt"],
      maximumShardBytes: maximumShardBytes)
  }

  /// Writes the bytes of a tensor of kind dense.
  public func write(_ bytes: UnsafeRawBufferPointer, of record: TensorRecord) throws {
    try shards.write(bytes, to: record.name)
  }

  /// Rounds the cores of a tensor to their dtype and writes them.
  /// - Returns: the cores as they are stored, to measure the error on.
  /// - Throws: `MPOCheckpointError` when a value does not fit the dtype.
  public func write<Scalar: CheckpointScalar>(
    _ mpo: MPO<Scalar>, of record: TensorRecord
  ) throws -> MPO<Scalar> {
    let stored = try zip(record.entries, mpo.cores).map { entry, core in
      try core.elements.withUnsafeBufferPointer { elements in
        do {
          return try Scalar.withRounded(elements, to: entry.dtype) { bytes in
            try shards.write(bytes, to: entry.name)
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

  /// Flushes the shards, copies the companions and writes the manifest.
  ///
  /// - Parameters:
  ///   - records: the records of the initialiser with their errors filled in.
  ///   - companions: files of the model folder to carry over, relative to `source`.
  public func finish(
    records: [TensorRecord], generator: String, source: Manifest.Source?, options: [String: String]?,
    companions: [String] = [], from sourceFolder: String? = nil
  ) throws {
    try shards.finish()
    var carried: [FileFingerprint] = []
    if let skeleton = source?.skeleton {
      carried.append(try FileFingerprint(ofFileAt: folder + "/" + skeleton, named: skeleton))
    }
    if let sourceFolder {
      for companion in companions where !shards.files.contains(companion) && companion != Manifest.fileName {
        try copyCompanion(companion, from: sourceFolder, to: folder)
        carried.append(try FileFingerprint(ofFileAt: folder + "/" + companion, named: companion))
      }
    }
    let files = try shards.files.map { try FileFingerprint(ofFileAt: folder + "/" + $0, named: $0) }
    let manifest = Manifest(
      generator: generator, source: source, shards: files.filter { $0.file != Self.indexName },
      companions: files.filter { $0.file == Self.indexName } + carried, options: options, tensors: records)
    try ManifestFile.encode(manifest).withUnsafeBytes { try writeFile($0, to: folder + "/" + Manifest.fileName) }
  }
}
