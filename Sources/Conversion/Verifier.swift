import Checkpoints
import MPOCheckpoints
import TensorNetworks

/// Checks an MPO checkpoint: files against their checksums, tensors against the source they came from.
public struct Verifier: Sendable {
  public var jobs: Int

  public init(jobs: Int) { self.jobs = jobs }

  /// What was looked at, and what does not hold.
  public struct Report: Sendable, Equatable {
    /// Each a sentence of its own; empty when all holds.
    public var problems: [String]
    /// Measured relative errors, when there was a source to measure against.
    public var relativeErrors: [(tensor: String, error: Double)] = []
    public var fileCount = 0
    public var tensorCount = 0

    public init(problems: [String] = []) { self.problems = problems }

    public static func == (a: Report, b: Report) -> Bool { a.problems == b.problems }
  }

  /// An MPO checkpoint, or why it is not a valid one.
  public enum Opened: Sendable {
    case valid(MPOCheckpoint)
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
    }
  }

  /// - Parameter original: the dense checkpoint it is supposed to come from.
  /// - Throws: what keeps the check from being made at all.
  public func verify(
    _ checkpoint: MPOCheckpoint, against original: (any DenseCheckpoint)? = nil,
    progress: @escaping ProgressHandler = { _ in }
  ) throws -> Report {
    var report = Report()
    report.fileCount = checkpoint.manifest.shards.count + checkpoint.manifest.companions.count + 1
    report.tensorCount = checkpoint.manifest.tensors.count
    report.problems = try checkpoint.damagedFiles().map(\.description)
    if report.problems.isEmpty { report.problems = try checkpoint.damagedEntries().map(\.description) }
    if let original, report.problems.isEmpty { try compare(checkpoint, original, &report, progress) }
    return report
  }

  private func compare(
    _ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint, _ report: inout Report,
    _ progress: @escaping ProgressHandler
  ) throws {
    let records = checkpoint.manifest.tensors
    let known = Dictionary(original.tensors.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    let problems = ParallelResults<String>(count: records.count)
    let errors = ParallelResults<Double>(count: records.count)
    let counter = ProgressCounter(.verify, total: records.reduce(0) { $0 + $1.info.elementCount }, progress)
    try forEachInParallel(Array(records.indices), jobs: jobs) { index in
      let record = records[index]
      func problem(_ reason: String) { problems[index] = "tensor '\(escaped(record.name))': \(reason)" }
      defer { counter.finished(record.name, elements: record.info.elementCount) }
      guard let tensor = known[record.name] else { return problem("is not in \(escaped(original.path))") }
      guard tensor.dtype == record.dtype, tensor.shape == record.shape else {
        return problem("is \(tensor.dtype.rawValue) \(tensor.shape) in \(escaped(original.path))")
      }
      let holder = try checkpoint.holder(of: record)
      guard let mpo = holder.mpo else {
        let isEqual = try original.withBytes(of: tensor) { bytes in
          try checkpoint.withDenseBytes(of: holder) { $0.elementsEqual(bytes) }
        }
        if !isEqual { problem("its bytes are not those of \(escaped(original.path))") }
        return
      }
      let error =
        holder.needsDoublePrecision
        ? try measure(record, holder, mpo, as: Double.self, checkpoint, original)
        : try measure(record, holder, mpo, as: Float.self, checkpoint, original)
      errors[index] = error
      if let recorded = mpo.relativeError, !(abs(error - recorded) <= 1e-7 + 1e-3 * recorded) {
        problem("its relative error is \(error), the manifest says \(recorded)")
      }
    }
    report.problems += try differentFiles(checkpoint, original)
    report.problems += records.indices.compactMap { problems[$0] }
    report.relativeErrors = records.indices.compactMap { index in errors[index].map { (records[index].name, $0) } }
    let names = Set(records.map(\.name))
    report.problems += original.tensors.filter { !names.contains($0.name) }.map {
      "tensor '\(escaped($0.name))': is in \(escaped(original.path)) but not here"
    }
  }

  private func measure<Scalar: CheckpointScalar>(
    _ record: TensorRecord, _ holder: TensorRecord, _ mpo: MPORecord, as type: Scalar.Type,
    _ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint
  ) throws -> Double {
    let cores: MPO<Scalar> = try checkpoint.mpo(holder, mpo)
    return try withMatrix(of: record, mpo, in: original) { relativeError(of: cores, to: $0) }
  }

  private func differentFiles(_ checkpoint: MPOCheckpoint, _ original: any DenseCheckpoint) throws -> [String] {
    guard let source = checkpoint.manifest.source else { return [] }
    let found = try original.files.map { try FileFingerprint(ofFileAt: $0) }
    let expected = Set(source.files.map(\.sha256))
    return found.filter { !expected.contains($0.sha256) }.map {
      "file '\(escaped($0.file))' of \(escaped(original.path)) is not the one this was made from (SHA-256 \($0.sha256))"
    }
  }
}
