import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

/// The way back: an MPO checkpoint becomes a dense one that any framework loads.
public struct Restorer: Sendable {
  /// Tensors that are worked on at the same time.
  public var jobs: Int

  /// A restorer that works on so many tensors at a time.
  public init(jobs: Int) { self.jobs = jobs }

  /// What a restored file is.
  public enum FileFormat: String, Sendable {
    /// One safetensors file.
    case safetensors
    /// One HDF5 file.
    case hdf5
    /// A Keras archive, from a source that was one.
    case keras

    /// The format that a path's ending asks for; nil for a folder.
    public init?(path: String) {
      if path.hasSuffix(".safetensors") {
        self = .safetensors
      } else if path.hasSuffix(".h5") || path.hasSuffix(".hdf5") {
        self = .hdf5
      } else if path.hasSuffix(".keras") {
        self = .keras
      } else {
        return nil
      }
    }
  }

  /// Restores to one file; an HDF5 file has the structure of the source when that was one.
  /// - Throws: `ConversionError.notRestorable` for a Keras archive when the source was none.
  public func restoreFile(
    _ source: MPOCheckpoint, to path: String, as format: FileFormat = .safetensors,
    progress: @escaping ProgressHandler = { _ in }
  ) throws {
    try Self.checkIsWhole(source)
    let manifest = source.manifest
    let tensors = manifest.contents.tensors.map(\.info)
    let metadata = manifest.source?.metadata ?? [:]
    let skeleton = manifest.source?.skeleton
    let writer: any DenseCheckpointWriter
    switch (format, skeleton) {
    case (.safetensors, _): writer = try SafetensorsWriter(path: path, tensors: tensors, metadata: metadata)
    case (.hdf5, nil): writer = try HDF5Writer(creating: path, tensors: tensors, metadata: metadata)
    case (.keras, let skeleton) where skeleton?.hasSuffix(".keras") != true:
      throw ConversionError.noKerasArchive(path: source.path)
    case (_, let skeleton?):
      writer = try HDF5Writer(
        skeleton: source.path + "/" + skeleton, output: path, tensors: tensors, asKerasArchive: format == .keras)
    case (.keras, nil): throw ConversionError.noKerasArchive(path: source.path)
    }
    try restore(source, to: writer, progress: progress)
    if skeleton != nil { try source.checkNotReplaced() }
  }

  private static func checkIsWhole(_ source: MPOCheckpoint) throws {
    guard let part = source.manifest.part else { return }
    throw ConversionError.onePart(path: source.path, index: part.index, count: part.count)
  }

  /// Restores to a model folder: the files that the source had, with their names and kinds, and its companions. A source
  /// that was no model folder becomes `model.safetensors`, in several shards when it is large.
  /// - Throws: `ConversionError` for a part of a conversion, and the errors of reading and writing.
  public func restoreFolder(
    _ source: MPOCheckpoint, to folder: String, progress: @escaping ProgressHandler = { _ in }
  ) throws {
    try Self.checkIsWhole(source)
    let manifest = source.manifest
    let skeletons = Set((manifest.source?.skeletons ?? []).map { TensorName($0) })
    let companions = manifest.companions.map(\.file).filter {
      $0 != MPOCheckpointWriter.indexName && $0 != RemoteCode.fileName && !skeletons.contains(TensorName($0))
    }
    do {
      for companion in companions {
        try restoreCompanion(companion, from: source.path, to: folder)
      }
    } catch {
      try source.checkNotReplaced()
      throw error
    }
    if !companions.isEmpty { try source.checkNotReplaced() }
    try restore(source, to: ModelFolderWriter(folder: folder, restoring: source), progress: progress)
    if !skeletons.isEmpty { try source.checkNotReplaced() }
  }

  /// Contracts the cores of every tensor and writes all tensors in the source's order, dtypes and shapes.
  /// - Throws: The errors of reading and writing.
  public func restore(
    _ source: MPOCheckpoint, to writer: any DenseCheckpointWriter, progress: @escaping ProgressHandler = { _ in }
  ) throws {
    let records = source.contents.tensors.sorted { ($1.info.byteCount, $0.name) < ($0.info.byteCount, $1.name) }
    let counter = ProgressCounter(.restore, total: records.reduce(0) { $0 + $1.info.elementCount }, progress)
    BLASThreads.use(1)
    try forEachInParallel(records, jobs: jobs) { record in
      try withRestoredBytes(of: record, in: source) { try writer.write($0, to: record.name) }
      counter.finished(record.name, elements: record.info.elementCount)
    }
    try writer.finish()
  }
}

/// Calls `body` with the bytes of a tensor, restored.
func withRestoredBytes<Result>(
  of record: TensorRecord, in checkpoint: MPOCheckpoint, _ body: (UnsafeRawBufferPointer) throws -> Result
) throws -> Result {
  let holder = try checkpoint.holder(of: record)
  guard let blocks = holder.blocks else { return try checkpoint.withDenseBytes(of: holder, body) }
  func restored<Scalar: CheckpointScalar>(_ type: Scalar.Type) throws -> Result {
    let matrix: Matrix<Scalar> = try checkpoint.matrix(of: blocks)
    return try matrix.elements.withUnsafeBufferPointer { elements in
      do {
        return try Scalar.withRounded(elements, to: record.dtype, body)
      } catch let error as ElementError {
        throw ConversionError.notRestorable(path: checkpoint.path, tensor: record.name, reason: "\(error)")
      }
    }
  }
  return checkpoint.contents.needsDoublePrecision(holder) ? try restored(Double.self) : try restored(Float.self)
}
