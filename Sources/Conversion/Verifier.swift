import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

/// Checks an MPO checkpoint: files against their checksums, tensors against the source they came from.
public struct Verifier: Sendable {
  /// Tensors that are worked on at the same time.
  public var jobs: Int

  /// A verifier that works on so many tensors at a time.
  public init(jobs: Int) { self.jobs = jobs }

  /// What was looked at, and what does not hold.
  public struct Findings: Sendable, Equatable {
    /// Each a sentence of its own; empty when all holds.
    public var problems: [String]
    /// Measured relative errors, when there was a source to measure against.
    public var relativeErrors: [(tensor: String, error: Double)] = []
    /// Files that were checked, the manifest among them.
    public var fileCount = 0
    /// Tensors of the checkpoint.
    public var tensorCount = 0

    /// Findings of a check that measured nothing.
    public init(problems: [String] = []) { self.problems = problems }

    public static func == (a: Findings, b: Findings) -> Bool { a.problems == b.problems }
  }

  /// An MPO checkpoint, or why it is not a valid one.
  public enum Opened: Sendable {
    /// A checkpoint whose manifest and files fit together.
    case valid(MPOCheckpoint)
    /// Why the checkpoint can't be opened.
    case invalid(reason: String)
  }

  /// Opens the MPO checkpoint at `path`.
  /// - Returns: it, or what does not hold when there is a checkpoint but not a valid one.
  /// - Throws: when there is none.
  public static func open(_ path: String) throws -> Opened {
    do {
      return .valid(try MPOCheckpoint(path: path))
    } catch let error as MPOCheckpointError {
      if case .notAnMPOCheckpoint = error { throw error }
      return .invalid(reason: error.description)
    } catch let error as CheckpointError {
      return .invalid(reason: error.description)
    } catch let error as FileError {
      return .invalid(reason: error.description)
    }
  }

  /// What does not hold of a checkpoint that can't be opened: the reason, and every file that is not as it should be.
  public static func problems(at path: String, openingFailedFor reason: String) -> [String] {
    [reason] + MPOCheckpoint.fileProblems(at: path).filter { $0 != reason }
  }

  /// - Parameters:
  ///   - checkpoint: what is checked.
  ///   - original: the dense checkpoint it is supposed to come from.
  ///   - progress: called as tensors are finished.
  /// - Throws: what keeps the check from being made at all.
  public func verify(
    _ checkpoint: MPOCheckpoint, against original: (any DenseCheckpoint)? = nil,
    progress: @escaping ProgressHandler = { _ in }
  ) throws -> Findings {
    let report: Findings
    do {
      report = try check(checkpoint, against: original, progress)
    } catch {
      try checkpoint.checkNotReplaced()
      throw error
    }
    if !report.problems.isEmpty { try checkpoint.checkNotReplaced() }
    return report
  }

  private func check(
    _ checkpoint: MPOCheckpoint, against original: (any DenseCheckpoint)?, _ progress: @escaping ProgressHandler
  ) throws -> Findings {
    var report = Findings()
    report.fileCount = checkpoint.manifest.shards.count + checkpoint.manifest.companions.count + 1
    report.tensorCount = checkpoint.contents.tensors.count
    report.problems = try checkpoint.damagedFiles().map(\.description)
    if report.problems.isEmpty { report.problems = try checkpoint.damagedEntries().map(\.description) }
    if let original { try compare(checkpoint, original, &report, progress) }
    return report
  }

  private func compare(
    _ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint, _ report: inout Findings,
    _ progress: @escaping ProgressHandler
  ) throws {
    let records = checkpoint.contents.tensors
    let known = Dictionary(original.tensors.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    let problems = ParallelResults<String>(count: records.count)
    let errors = ParallelResults<Double>(count: records.count)
    let counter = ProgressCounter(.verify, total: records.reduce(0) { $0 + $1.info.elementCount }, progress)
    BLASThreads.use(1)
    try forEachInParallel(Array(records.indices), jobs: jobs) { index in
      let record = records[index]
      func problem(_ reason: String) { problems[index] = "tensor '\(escaped(record.name))': \(reason)" }
      defer { counter.finished(record.name, elements: record.info.elementCount) }
      guard let tensor = known[TensorName(record.name)] else { return problem("is not in \(escaped(original.path))") }
      guard tensor.dtype == record.dtype, tensor.shape == record.shape else {
        return problem(
          "is \(tensor.dtype.rawValue) \(tensor.shape) in \(escaped(original.path)), but \(record.dtype.rawValue) "
            + "\(record.shape) in the checkpoint")
      }
      do {
        let (error, reason) = try compare(record, tensor, checkpoint, original)
        errors[index] = error
        if let reason { problem(reason) }
      } catch let error as MPOCheckpointError {
        problem(error.description)
      }
    }
    report.problems += try differentFiles(checkpoint, original)
    report.problems += records.indices.compactMap { problems[$0] }
    report.relativeErrors = records.indices.compactMap { index in errors[index].map { (records[index].name, $0) } }
    // A part has some of the tensors only.
    if checkpoint.manifest.part != nil { return }
    let names = Set(records.map(\.info.key))
    report.problems += original.tensors.filter { !names.contains($0.key) }.map {
      "tensor '\(escaped($0.name))': is in \(escaped(original.path)) but not in the checkpoint"
    }
  }

  /// The measured error of a tensor in cores, and what does not hold of it.
  private func compare(
    _ record: TensorRecord, _ tensor: TensorInfo, _ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint
  ) throws -> (error: Double?, problem: String?) {
    let holder = try checkpoint.holder(of: record)
    guard let blocks = holder.blocks else {
      let isEqual = try original.withBytes(of: tensor) { bytes in
        try checkpoint.withDenseBytes(of: holder) { $0.elementsEqual(bytes) }
      }
      return (nil, isEqual ? nil : "its bytes differ from those in \(escaped(original.path))")
    }
    let error =
      checkpoint.contents.needsDoublePrecision(holder)
      ? try measure(record, holder, blocks, as: Double.self, checkpoint, original)
      : try measure(record, holder, blocks, as: Float.self, checkpoint, original)
    guard let recorded = blocks.relativeError, !(abs(error - recorded) <= 1e-7 + 1e-3 * recorded) else {
      return (error, nil)
    }
    return (error, "its relative error is \(error), the manifest says \(recorded)")
  }

  private func measure<Scalar: CheckpointScalar>(
    _ record: TensorRecord, _ holder: TensorRecord, _ blocks: BlockMatrix, as type: Scalar.Type,
    _ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint
  ) throws -> Double {
    try original.withMatrix(of: record.info, rows: blocks.rows, columns: blocks.columns) {
      (view: MatrixView<Scalar>) in
      if let chain = checkpoint.contents.ordinaryOperator(of: holder) {
        return relativeError(of: try checkpoint.chain(chain), to: view)
      }
      let restored: Matrix<Scalar> = try checkpoint.matrix(of: blocks)
      return relativeError(of: restored, to: view)
    }
  }

  private func differentFiles(_ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint) throws -> [String] {
    guard let source = checkpoint.manifest.source else { return [] }
    // A part of a conversion knows some of the files.
    let positions = checkpoint.manifest.part?.files?.positions ?? Array(original.files.indices)
    let found = try positions.filter(original.files.indices.contains).map {
      try FileFingerprint(ofFileAt: original.files[$0])
    }
    let expected = Set(source.files.map(\.sha256))
    return found.filter { !expected.contains($0.sha256) }.map {
      "file '\(escaped($0.file))' of \(escaped(original.path)) is not the file from which the checkpoint was made (SHA-256 \($0.sha256))"
    }
  }
}
