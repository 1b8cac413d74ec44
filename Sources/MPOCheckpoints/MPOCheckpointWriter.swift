import Checkpoints
import Files
import FoundationEssentials
import LinearAlgebra
import Recipes
import Synchronization
import TensorNetworks

/// An MPO checkpoint being written into a folder: its contents are known when it is created, cores and dense tensors
/// arrive in any order and from any thread, each of them once, the manifest comes last.
public struct MPOCheckpointWriter: Sendable {
  static let shardStem = "tensors"
  /// The index of the shards, where there are several.
  public static let indexName = shardStem + ".safetensors.index.json"

  /// The folder that is written.
  public let folder: String
  private let contents: CheckpointContents
  private let maximumShardBytes: Int
  private let output: Output

  /// Where entries go to.
  private enum Output: Sendable {
    case shards(ShardedSafetensorsWriter)
    case packed(PackedShards)
  }

  /// - Parameters:
  ///   - folder: an empty folder.
  ///   - contents: every tensor, in the order of the source, with its operators and cores.
  ///   - packs: whether entries that become smaller by it are packed.
  ///   - maximumShardBytes: a shard is closed before it would exceed this size.
  /// - Throws: `MPOCheckpointError` for contents that readers would refuse.
  public init(
    folder: String, contents: CheckpointContents, packs: Bool = false, maximumShardBytes: Int = 5_000_000_000
  ) throws {
    self.folder = folder
    self.contents = contents
    if let (name, reason) = contents.problem {
      throw MPOCheckpointError.tensor(
        path: folder, tensor: name,
        reason: "\(reason); readers would refuse it: raise the bonds, or leave the tensor dense")
    }
    self.maximumShardBytes = maximumShardBytes
    let entries = contents.arrays.flatMap(\.entries)
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

  /// Writes the bytes of a dense tensor that is kept as it is.
  /// - Throws: `CheckpointError` for a tensor that was not declared, was written before, or has another size;
  ///   `FileError` where it can't be written.
  public func write(_ bytes: UnsafeRawBufferPointer, of record: TensorRecord) throws {
    try write(bytes, to: record.name)
  }

  /// Writes the entries that another checkpoint has of a dense tensor with the same encoding.
  /// - Throws: `CheckpointError`, `MPOCheckpointError` and `FileError` where it can't be read or written.
  public func copyDense(_ record: TensorRecord, from checkpoint: MPOCheckpoint) throws {
    for entry in record.array?.entries ?? [] { try copy(entry, from: checkpoint) }
  }

  /// Writes the entries that another checkpoint has of a core with the same record.
  /// - Throws: `CheckpointError`, `MPOCheckpointError` and `FileError` where it can't be read or written.
  public func copy(_ core: CoreRecord, from checkpoint: MPOCheckpoint) throws {
    for entry in core.entries { try copy(entry, from: checkpoint) }
  }

  private func copy(_ entry: TensorInfo, from checkpoint: MPOCheckpoint) throws {
    try checkpoint.withEntryBytes(of: entry) { try write($0, to: entry.name) }
  }

  /// Rounds the cores of an operator as their encodings ask, and writes them.
  ///
  /// - Parameters:
  ///   - gauged: in the gauge of the record.
  ///   - rounded: the integers of each core, where they are chosen already; nil to round each value to the nearest.
  ///   - record: the operator, one of the contents.
  /// - Returns: the chain as it is stored, to measure the error on.
  /// - Throws: `MPOCheckpointError` when a value does not fit its encoding.
  public func write<Scalar: CheckpointScalar>(
    _ gauged: GaugedMPO<Scalar>, rounded: [RoundedMatrix?]? = nil, of record: OperatorRecord
  ) throws -> MPO<Scalar> {
    precondition(gauged.gauge == record.gauge && gauged.mpo.bonds == record.bonds)
    let cores = try record.cores.indices.map { index in
      let core = gauged.mpo.cores[index]
      return MPOCore(
        shape: core.shape,
        elements: try write(
          core.elements, pivots: gauged.pivots[index], rounded: rounded?[index], of: record.cores[index]))
    }
    let chain = MPO(shape: record.shape, cores: cores)
    guard let name = record.singularValues, let values = gauged.singularValues else { return chain }
    let stored = try write(values, pivots: nil, of: name)
    return GaugedMPO(gauge: record.gauge, mpo: chain, singularValues: stored).absorbed
  }

  /// Writes the elements of a basis or scale.
  /// - Returns: the elements as they are stored.
  /// - Throws: `MPOCheckpointError` for a core that was not declared.
  public func write(_ elements: [Double], ofCore name: String) throws -> [Double] {
    try write(elements, pivots: nil, of: name)
  }

  /// Writes the indices of a permutation.
  /// - Throws: `MPOCheckpointError` for a core that was not declared.
  public func write(permutation: [Int], ofCore name: String) throws {
    guard let entry = contents.core(named: name)?.entries.first else {
      throw MPOCheckpointError.tensor(path: folder, tensor: name, reason: "is written but was not declared")
    }
    try ArrayEncoding.indexBytes(permutation, entry.dtype).withUnsafeBytes { try write($0, to: entry.name) }
  }

  /// - Returns: the elements as they are stored.
  private func write<Scalar: CheckpointScalar>(
    _ elements: [Scalar], pivots: [Int]?, rounded: RoundedMatrix? = nil, of name: String
  ) throws -> [Scalar] {
    guard let core = contents.core(named: name) else {
      throw MPOCheckpointError.tensor(path: folder, tensor: name, reason: "is written but was not declared")
    }
    func doesNotFit(_ reason: String) -> MPOCheckpointError {
      .tensor(path: folder, tensor: name, reason: reason)
    }
    do {
      return try core.encoding.encode(
        elements, pivots: pivots, rounded: rounded, of: name, shape: core.shape
      ) {
        try write($0, to: $1.name)
      }
    } catch let error as ElementError {
      throw doesNotFit("\(error); use --dtype f32, or --exclude the tensor")
    } catch let error as ArrayEncodingError {
      throw doesNotFit("\(error); store it as plain values, or --exclude the tensor")
    }
  }

  /// Flushes the shards, copies the companions and writes the manifest.
  ///
  /// - Parameters:
  ///   - records: tensors with their errors filled in.
  ///   - operators: operators with their entropies filled in.
  ///   - generator: what the manifest says has written it.
  ///   - source: where the tensors came from; nil where that is not known.
  ///   - conversion: the recipe.
  ///   - squeeze: what a squeeze did; nil where there was none.
  ///   - companions: files of the model folder to carry over, from `sourceFolder`.
  ///   - sourceFolder: the model folder; nil for no companions.
  ///   - part: which part of a conversion this is, when it is one.
  /// - Returns: the manifest, whose records say what is packed.
  /// - Throws: `CheckpointError` for an entry that was not written; `FileError` where the disk refuses or a companion
  ///   can't be read.
  @discardableResult
  public func finish(
    records: [TensorRecord] = [], operators: [OperatorRecord] = [], generator: String,
    source: CheckpointManifest.Source?,
    conversion: ConversionRecipe?,
    squeeze: CheckpointManifest.Squeeze? = nil, companions: [Companion] = [], from sourceFolder: String? = nil,
    part: CheckpointManifest.Part? = nil
  ) throws -> CheckpointManifest {
    let files: [FileFingerprint]
    var packed: [TensorName: PackedEntry] = [:]
    switch output {
    case .shards(let shards): files = try Self.finish(shards, in: folder)
    case .packed(let spool):
      let shards: ShardedSafetensorsWriter
      (shards, packed) = try spool.shards(maximumShardBytes: maximumShardBytes)
      files = try Self.finish(shards, in: folder)
    }
    let carried = try Self.carry(companions, from: sourceFolder, to: folder, skeletons: source?.skeletons ?? [])
    var contents = contents
    contents.update(records, operators)
    contents.setPacked(packed)
    let manifest = CheckpointManifest(
      generator: generator, source: source, shards: files.filter { $0.file != Self.indexName },
      companions: files.filter { $0.file == Self.indexName } + carried, conversion: conversion, squeeze: squeeze,
      contents: contents, part: part)
    try ManifestFile.encode(manifest).withUnsafeBytes {
      try writeFile($0, to: folder + "/" + CheckpointManifest.fileName)
    }
    return manifest
  }

  /// Flushes shards while their fingerprints are computed.
  private static func finish(_ shards: ShardedSafetensorsWriter, in folder: String) throws -> [FileFingerprint] {
    @Sendable func fingerprint(_ name: String) throws -> FileFingerprint {
      try FileFingerprint(ofFileAt: folder + "/" + name, named: name)
    }
    let names = shards.files.filter { $0 != indexName }
    let found = Mutex<[String: FileFingerprint]>([:])
    try forEachInParallel([nil] + names, jobs: 2) { name in
      guard let name else { return try shards.finish() }
      let fingerprint = try fingerprint(name)
      found.withLock { $0[name] = fingerprint }
    }
    // The index is written at the end.
    return try shards.files.map { name in try found.withLock { $0[name] } ?? fingerprint(name) }
  }

  /// Copies companions.
  /// - Parameter skeletons: files that the folder has already.
  /// - Returns: the fingerprints of all of them.
  static func carry(
    _ companions: [Companion], from sourceFolder: String?, to folder: String, skeletons: [String]
  ) throws -> [FileFingerprint] {
    var carried: [FileFingerprint] = []
    let copied = Set(companions.map { TensorName($0.storedPath) })
    for skeleton in skeletons where !copied.contains(TensorName(skeleton)) {
      carried.append(try FileFingerprint(ofFileAt: folder + "/" + skeleton, named: skeleton))
    }
    if let sourceFolder {
      for companion in companions {
        try copyAnnouncedCompanion(companion, from: sourceFolder, to: folder)
        carried.append(
          try FileFingerprint(ofFileAt: folder + "/" + companion.storedPath, named: companion.storedPath))
      }
    }
    return carried
  }
}
