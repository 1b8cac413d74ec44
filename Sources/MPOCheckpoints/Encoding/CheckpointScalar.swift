import Checkpoints
import LinearAlgebra

/// A precision that elements of checkpoints are computed in.
public protocol CheckpointScalar: LinearAlgebraScalar {
  /// Calls `body` with a tensor's elements, widened; without a copy where the bytes already are such numbers.
  /// - Throws: `ElementError` where the type is not converted, or an element does not fit; what `body` throws.
  static func withElements<Result>(
    _ bytes: UnsafeRawBufferPointer, of dtype: DType, _ body: (UnsafeBufferPointer<Self>) throws -> Result
  ) throws -> Result
  /// The type of elements that need no widening.
  static var dtype: DType { get }
  /// Writes a tensor's elements, widened, to `elements`, which has room for exactly as many.
  /// - Throws: `ElementError` where the type is not converted, or an element does not fit.
  static func decode(
    _ bytes: UnsafeRawBufferPointer, of dtype: DType, into elements: UnsafeMutableBufferPointer<Self>) throws
  /// Calls `body` with the elements rounded to `dtype`, as bytes.
  /// - Throws: `ElementError.overflow` for a finite value that would become infinite.
  static func withRounded<Result>(
    _ elements: UnsafeBufferPointer<Self>, to dtype: DType, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result
}

extension Float: CheckpointScalar {
  public static var dtype: DType { .f32 }

  public static func decode(
    _ bytes: UnsafeRawBufferPointer, of dtype: DType, into elements: UnsafeMutableBufferPointer<Float>
  ) throws {
    try TensorElements.decode(bytes, as: dtype, into: elements)
  }

  public static func withElements<Result>(
    _ bytes: UnsafeRawBufferPointer, of dtype: DType, _ body: (UnsafeBufferPointer<Float>) throws -> Result
  ) throws -> Result {
    try TensorElements.withFloats(of: bytes, dtype, body)
  }

  public static func withRounded<Result>(
    _ elements: UnsafeBufferPointer<Float>, to dtype: DType, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    if dtype == .f32 { return try body(UnsafeRawBufferPointer(elements)) }
    return try withTemporaryBytes(elements.count * dtype.bitWidth / 8) { bytes in
      try TensorElements.encode(elements, as: dtype, into: bytes)
      return try body(UnsafeRawBufferPointer(bytes))
    }
  }
}

extension Double: CheckpointScalar {
  public static var dtype: DType { .f64 }

  public static func decode(
    _ bytes: UnsafeRawBufferPointer, of dtype: DType, into elements: UnsafeMutableBufferPointer<Double>
  ) throws {
    try TensorElements.decode(bytes, as: dtype, into: elements)
  }

  public static func withElements<Result>(
    _ bytes: UnsafeRawBufferPointer, of dtype: DType, _ body: (UnsafeBufferPointer<Double>) throws -> Result
  ) throws -> Result {
    try TensorElements.withDoubles(of: bytes, dtype, body)
  }

  public static func withRounded<Result>(
    _ elements: UnsafeBufferPointer<Double>, to dtype: DType, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    if dtype == .f64 { return try body(UnsafeRawBufferPointer(elements)) }
    return try withTemporaryBytes(elements.count * dtype.bitWidth / 8) { bytes in
      try TensorElements.encode(elements, as: dtype, into: bytes)
      return try body(UnsafeRawBufferPointer(bytes))
    }
  }
}

/// Heap memory for the time of a call.
private func withTemporaryBytes<Result>(
  _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Result
) rethrows -> Result {
  let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
  defer { bytes.deallocate() }
  return try body(bytes)
}
