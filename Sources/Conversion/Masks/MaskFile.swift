import Checkpoints
import Files
import Recipes
import Synchronization

/// A file of masks: for a tensor of a model, by its name, one of the same shape, of zeros and ones; BOOL, U8 or floating-point.
/// Tensors that it does not speak of are kept whole.
public struct MaskFile: Sendable {
  let file: any DenseCheckpoint

  /// - Throws: `CheckpointError` for what is no checkpoint, `ConversionError` for several files and tensors of other types.
  public init(path: String) throws {
    file = try openDenseCheckpoint(at: path)
    guard file.files.count == 1 else {
      throw ConversionError.stageFile(path: path, reason: "is several files; a mask is one file")
    }
    for tensor in file.tensors where !(tensor.dtype == .bool || tensor.dtype == .u8 || tensor.dtype.isDecomposable) {
      throw refused(tensor.name, "is \(tensor.dtype.rawValue); a mask is BOOL, U8 or floating-point")
    }
  }

  /// The file.
  public var path: String { file.path }
  /// Reads the file once each time.
  /// - Throws: `FileError` where it can't be read.
  public var sha256: String { get throws { try FileFingerprint(ofFileAt: file.files[0]).sha256 } }

  func refused(_ tensor: String, _ reason: String) -> ConversionError {
    .mismatch(path: file.path, tensor: tensor, reason: reason)
  }

  /// Checks that the masks are of tensors of a network, and of one of its matrices at least.
  /// - Returns: a warning that counts the matrices without a mask; nil where all have one.
  /// - Throws: `ConversionError`.
  func check(against network: SourceNetwork) throws -> String? {
    for mask in file.tensors {
      let place = escaped(network.checkpoint.path, limit: 4096)
      guard let tensor = network.checkpoint.tensor(named: mask.name) else {
        throw refused(mask.name, "is not a tensor of \(place); the tensors of a mask have the names of the model's")
      }
      guard tensor.shape == mask.shape else {
        throw refused(mask.name, "is a mask of \(mask.shape); the tensor of \(place) is \(tensor.shape)")
      }
    }
    let without = network.matrices.filter { file.tensor(named: $0.tensor.name) == nil }
    guard without.count < network.matrices.count else {
      throw ConversionError.stageFile(
        path: path, reason: "masks none of the matrices that are decomposed; is it for this model?")
    }
    guard let first = without.first else { return nil }
    return "\(without.count) of \(network.matrices.count) matrices have no mask "
      + "('\(escaped(first.name))'\(without.count > 1 ? ", …" : "")); all their elements are kept"
  }

  /// Which elements of a range of a tensor are kept, 1 or 0 each; nil for a tensor without a mask.
  /// - Throws: `ConversionError.mismatch` for an element that is neither.
  func kept(of tensor: TensorInfo, in range: Range<Int>) throws -> [UInt8]? {
    guard let mask = file.tensor(named: tensor.name) else { return nil }
    let width = mask.dtype.bitWidth / 8
    let kept: [UInt8] = try file.withBytes(of: mask, in: range.lowerBound * width..<range.upperBound * width) { bytes in
      guard mask.dtype.isDecomposable else { return Array(bytes) }
      return try TensorElements.withDoubles(of: bytes, mask.dtype) { $0.map { $0 == 0 ? 0 : $0 == 1 ? 1 : 2 } }
    }
    if let place = kept.firstIndex(where: { $0 > 1 }) {
      throw refused(mask.name, "has an element that is neither 0 nor 1, at \(range.lowerBound + place)")
    }
    return kept
  }
}

/// A checkpoint whose tensors have zeros where a mask has.
struct MaskedCheckpoint: DenseCheckpoint {
  let base: any DenseCheckpoint
  let mask: MaskFile

  var path: String { base.path }
  var format: CheckpointFormat { base.format }
  var files: [String] { base.files }
  var tensors: [TensorInfo] { base.tensors }
  var metadata: CheckpointMetadata { base.metadata }
  var companions: [String] { base.companions }
  var folder: String? { base.folder }
  var components: [CheckpointComponent] { base.components }
  var notices: [String] { base.notices }

  func tensor(named name: String) -> TensorInfo? { base.tensor(named: name) }

  func withBytes<Result>(of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result) throws -> Result {
    try withBytes(of: tensor, in: 0..<tensor.byteCount, body)
  }

  func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    let width = max(1, tensor.dtype.bitWidth / 8)
    let elements = range.lowerBound / width..<(range.upperBound + width - 1) / width
    guard tensor.dtype.isDecomposable, let kept = try mask.kept(of: tensor, in: elements) else {
      return try base.withBytes(of: tensor, in: range, body)
    }
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 8)
    defer { copy.deallocate() }
    try base.withBytes(of: tensor, in: range) { copy.copyMemory(from: $0) }
    for (index, value) in kept.enumerated() where value == 0 {
      let start = (elements.lowerBound + index) * width - range.lowerBound
      for byte in max(0, start)..<min(copy.count, start + width) { copy[byte] = 0 }
    }
    return try body(UnsafeRawBufferPointer(copy))
  }
}
