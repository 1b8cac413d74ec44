import Checkpoints
import MPOCheckpoints

/// A model that stands for another one with an error: quantised and written out densely again, or an MPO checkpoint.
public enum CompressedModel: Sendable {
  /// A dense checkpoint: what quantised weights stand for.
  case dense(any DenseCheckpoint)
  /// An MPO checkpoint.
  case operators(MPOCheckpoint)

  /// Opens what is at `path`.
  /// - Throws: the errors of opening; `ConversionError.onePart` for a part of a conversion.
  public init(path: String) throws {
    guard MPOCheckpoint.isPresent(at: path) else {
      self = .dense(try openDenseCheckpoint(at: path))
      return
    }
    let checkpoint = try MPOCheckpoint(path: path)
    if let part = checkpoint.manifest.part {
      throw ConversionError.onePart(path: path, index: part.index, count: part.count)
    }
    self = .operators(checkpoint)
  }

  /// The file or folder that was opened.
  public var path: String {
    switch self {
    case .dense(let checkpoint): checkpoint.path
    case .operators(let checkpoint): checkpoint.path
    }
  }

  /// Its files, for what must not be overwritten.
  public var files: [String] {
    switch self {
    case .dense(let checkpoint): checkpoint.files
    case .operators(let checkpoint): [checkpoint.path]
    }
  }

  /// Calls `body` with the bytes that stand for a tensor of the original, in the dtype of the first.
  /// - Throws: `ConversionError.mismatch` where there is no such tensor, or one that is no matrix of numbers of its shape.
  func withBytes<Result>(
    of original: TensorInfo, _ body: (UnsafeRawBufferPointer, DType) throws -> Result
  ) throws -> Result {
    func mismatch(_ reason: String) -> ConversionError {
      .mismatch(path: path, tensor: original.name, reason: reason)
    }
    let missing = mismatch("is missing; is this the same model, written out densely?")
    func check(_ found: TensorInfo) throws -> TensorInfo {
      guard found.shape == original.shape, found.dtype.isDecomposable else {
        throw mismatch(
          "is \(found.dtype.rawValue) \(found.shape), the original \(original.dtype.rawValue) \(original.shape); write "
            + "the quantised model out densely first")
      }
      return found
    }
    switch self {
    case .dense(let checkpoint):
      guard let tensor = checkpoint.tensor(named: original.name) else { throw missing }
      let found = try check(tensor)
      return try checkpoint.withBytes(of: found) { try body($0, found.dtype) }
    case .operators(let checkpoint):
      guard let record = checkpoint.contents.tensors.first(where: { $0.info.key == original.key }) else {
        throw missing
      }
      let found = try check(record.info)
      return try withRestoredBytes(of: record, in: checkpoint) { try body($0, found.dtype) }
    }
  }
}
