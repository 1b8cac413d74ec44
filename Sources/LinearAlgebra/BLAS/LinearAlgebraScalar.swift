import COpenBLAS

/// A precision that matrices are computed in: `Float` or `Double`.
///
/// The requirements are the loops over elements; everything above them is written once for both.
public protocol LinearAlgebraScalar: BinaryFloatingPoint, Sendable {
  /// `c = a · b`, row-major; `a` is `[rows, inner]`, contiguous, and `b` `[inner, columns]`; the strides are from one row of
  /// `b` and `c` to the next.
  static func multiply(
    _ a: UnsafePointer<Self>, _ b: UnsafePointer<Self>, stride bStride: Int, into c: UnsafeMutablePointer<Self>,
    stride: Int, rows: Int, inner: Int, columns: Int)
  /// The upper triangle of `c = X Xᵀ + factor · c`, row-major, `[size, size]`, for the rows `X = [size, inner]`, or of
  /// `XᵀX` for `X = [inner, size]` when it is transposed; `stride` is from one row of `X` to the next.
  static func multiplyByTranspose(
    _ x: UnsafePointer<Self>, transposed: Bool, size: Int, inner: Int, stride: Int, addingTo factor: Self,
    into c: UnsafeMutablePointer<Self>)
  /// The sum of squares, in double precision.
  static func squaredNorm(_ values: UnsafeBufferPointer<Self>) -> Double
  /// The largest magnitude, 0 of no values.
  static func largestMagnitude(_ values: UnsafeBufferPointer<Self>) -> Self
  /// The sum of squared differences of two buffers of the same length, in double precision.
  static func squaredDistance(_ a: UnsafeBufferPointer<Self>, _ b: UnsafeBufferPointer<Self>) -> Double
  /// `Σ a b`, in double precision.
  static func dot(_ a: UnsafeBufferPointer<Self>, _ b: UnsafeBufferPointer<Self>) -> Double
  /// `y += factor · x`.
  static func add(_ factor: Self, times x: UnsafePointer<Self>, to y: UnsafeMutablePointer<Self>, count: Int)
  /// `c = a ⊙ b`, element by element.
  static func multiplyElements(
    _ a: UnsafePointer<Self>, _ b: UnsafePointer<Self>, into c: UnsafeMutablePointer<Self>, count: Int)
  /// Copies to double precision.
  static func widen(_ source: UnsafePointer<Self>, count: Int, into target: UnsafeMutablePointer<Double>)
  /// `y += x`.
  static func addWidened(_ x: UnsafePointer<Self>, to y: UnsafeMutablePointer<Double>, count: Int)
  /// Rounds from double precision.
  static func narrow(_ source: UnsafePointer<Double>, count: Int, into target: UnsafeMutablePointer<Self>)
  /// Writes the transpose of `[rows, columns]`.
  static func transpose(
    _ source: UnsafePointer<Self>, rows: Int, columns: Int, into target: UnsafeMutablePointer<Self>)
  /// Replaces `b`, `[rows, columns]`, by its product with a triangular matrix or, `solving`, with its inverse.
  static func applyTriangle(
    _ triangle: UnsafePointer<Self>, _ product: TriangularProduct, solving: Bool, to b: UnsafeMutablePointer<Self>,
    rows: Int, columns: Int)
}

/// Which product with a lower triangular `L`, `[n, n]`, row-major, is meant.
public enum TriangularProduct: Sendable {
  /// `Lᵀ B`.
  case transposedFromLeft
  /// `B L`.
  case fromRight
  /// `B Lᵀ`.
  case transposedFromRight
}

extension Float: LinearAlgebraScalar {
  public static func multiply(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, stride bStride: Int, into c: UnsafeMutablePointer<Float>,
    stride: Int, rows: Int, inner: Int, columns: Int
  ) {
    cblas_sgemm(
      CblasRowMajor, CblasNoTrans, CblasNoTrans, blasInt(rows), blasInt(columns), blasInt(inner), 1, a, blasInt(inner),
      b, blasInt(bStride), 0, c, blasInt(stride))
  }

  public static func multiplyByTranspose(
    _ x: UnsafePointer<Float>, transposed: Bool, size: Int, inner: Int, stride: Int, addingTo factor: Float,
    into c: UnsafeMutablePointer<Float>
  ) {
    cblas_ssyrk(
      CblasRowMajor, CblasUpper, transposed ? CblasTrans : CblasNoTrans, blasInt(size), blasInt(inner), 1, x,
      blasInt(stride), factor, c, blasInt(size))
  }

  public static func squaredNorm(_ values: UnsafeBufferPointer<Float>) -> Double { sumOfSquares(values) }

  public static func largestMagnitude(_ values: UnsafeBufferPointer<Float>) -> Float {
    largest(values) { cblas_isamax($0, $1, 1) }
  }

  public static func squaredDistance(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) -> Double {
    sumOfSquaredDifferences(a, b)
  }

  public static func dot(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) -> Double {
    sumOfProducts(a, b)
  }

  public static func add(
    _ factor: Float, times x: UnsafePointer<Float>, to y: UnsafeMutablePointer<Float>, count: Int
  ) {
    cblas_saxpy(blasInt(count), factor, x, 1, y, 1)
  }

  public static func multiplyElements(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>, count: Int
  ) {
    for index in 0..<count { c[index] = a[index] * b[index] }
  }

  public static func widen(_ source: UnsafePointer<Float>, count: Int, into target: UnsafeMutablePointer<Double>) {
    for index in 0..<count { target[index] = Double(source[index]) }
  }

  public static func addWidened(_ x: UnsafePointer<Float>, to y: UnsafeMutablePointer<Double>, count: Int) {
    for index in 0..<count { y[index] += Double(x[index]) }
  }

  public static func narrow(_ source: UnsafePointer<Double>, count: Int, into target: UnsafeMutablePointer<Float>) {
    for index in 0..<count { target[index] = Float(source[index]) }
  }

  public static func transpose(
    _ source: UnsafePointer<Float>, rows: Int, columns: Int, into target: UnsafeMutablePointer<Float>
  ) {
    cblas_somatcopy(
      CblasRowMajor, CblasTrans, blasInt(rows), blasInt(columns), 1, source, blasInt(columns), target, blasInt(rows))
  }

  public static func applyTriangle(
    _ triangle: UnsafePointer<Float>, _ product: TriangularProduct, solving: Bool, to b: UnsafeMutablePointer<Float>,
    rows: Int, columns: Int
  ) {
    let (side, transpose) = product.blas
    let call = solving ? cblas_strsm : cblas_strmm
    call(
      CblasRowMajor, side, CblasLower, transpose, CblasNonUnit, blasInt(rows), blasInt(columns), 1, triangle,
      blasInt(max(1, side == CblasLeft ? rows : columns)), b, blasInt(max(1, columns)))
  }
}

extension Double: LinearAlgebraScalar {
  public static func multiply(
    _ a: UnsafePointer<Double>, _ b: UnsafePointer<Double>, stride bStride: Int, into c: UnsafeMutablePointer<Double>,
    stride: Int, rows: Int, inner: Int, columns: Int
  ) {
    cblas_dgemm(
      CblasRowMajor, CblasNoTrans, CblasNoTrans, blasInt(rows), blasInt(columns), blasInt(inner), 1, a, blasInt(inner),
      b, blasInt(bStride), 0, c, blasInt(stride))
  }

  public static func multiplyByTranspose(
    _ x: UnsafePointer<Double>, transposed: Bool, size: Int, inner: Int, stride: Int, addingTo factor: Double,
    into c: UnsafeMutablePointer<Double>
  ) {
    cblas_dsyrk(
      CblasRowMajor, CblasUpper, transposed ? CblasTrans : CblasNoTrans, blasInt(size), blasInt(inner), 1, x,
      blasInt(stride), factor, c, blasInt(size))
  }

  public static func squaredNorm(_ values: UnsafeBufferPointer<Double>) -> Double { sumOfSquares(values) }

  public static func largestMagnitude(_ values: UnsafeBufferPointer<Double>) -> Double {
    largest(values) { cblas_idamax($0, $1, 1) }
  }

  public static func squaredDistance(_ a: UnsafeBufferPointer<Double>, _ b: UnsafeBufferPointer<Double>) -> Double {
    sumOfSquaredDifferences(a, b)
  }

  public static func dot(_ a: UnsafeBufferPointer<Double>, _ b: UnsafeBufferPointer<Double>) -> Double {
    sumOfProducts(a, b)
  }

  public static func add(
    _ factor: Double, times x: UnsafePointer<Double>, to y: UnsafeMutablePointer<Double>, count: Int
  ) {
    cblas_daxpy(blasInt(count), factor, x, 1, y, 1)
  }

  public static func multiplyElements(
    _ a: UnsafePointer<Double>, _ b: UnsafePointer<Double>, into c: UnsafeMutablePointer<Double>, count: Int
  ) {
    for index in 0..<count { c[index] = a[index] * b[index] }
  }

  public static func widen(_ source: UnsafePointer<Double>, count: Int, into target: UnsafeMutablePointer<Double>) {
    target.update(from: source, count: count)
  }

  public static func addWidened(_ x: UnsafePointer<Double>, to y: UnsafeMutablePointer<Double>, count: Int) {
    for index in 0..<count { y[index] += x[index] }
  }

  public static func narrow(_ source: UnsafePointer<Double>, count: Int, into target: UnsafeMutablePointer<Double>) {
    target.update(from: source, count: count)
  }

  public static func transpose(
    _ source: UnsafePointer<Double>, rows: Int, columns: Int, into target: UnsafeMutablePointer<Double>
  ) {
    cblas_domatcopy(
      CblasRowMajor, CblasTrans, blasInt(rows), blasInt(columns), 1, source, blasInt(columns), target, blasInt(rows))
  }

  public static func applyTriangle(
    _ triangle: UnsafePointer<Double>, _ product: TriangularProduct, solving: Bool, to b: UnsafeMutablePointer<Double>,
    rows: Int, columns: Int
  ) {
    let (side, transpose) = product.blas
    let call = solving ? cblas_dtrsm : cblas_dtrmm
    call(
      CblasRowMajor, side, CblasLower, transpose, CblasNonUnit, blasInt(rows), blasInt(columns), 1, triangle,
      blasInt(max(1, side == CblasLeft ? rows : columns)), b, blasInt(max(1, columns)))
  }
}

extension LinearAlgebraScalar {
  /// The power of two that brings the largest magnitude of the values to about 1; nil when it is between 1e-12 and 1e12 or zero,
  /// so that squares and their sums are safe as they are.
  public static func unitScale(of values: UnsafeBufferPointer<Self>) -> Self? {
    let largest = largestMagnitude(values)
    guard largest > 0, largest.isFinite, !(1e-12...1e12).contains(largest) else { return nil }
    // Both the power and its inverse are normal numbers.
    let limit = Int(Self.greatestFiniteMagnitude.exponent) - 2
    return Self(sign: .plus, exponent: Exponent(max(-limit, min(limit, -Int(largest.exponent)))), significand: 1)
  }
}

/// The largest magnitude, of as many values at a time as BLAS can count.
private func largest<Scalar: LinearAlgebraScalar>(
  _ values: UnsafeBufferPointer<Scalar>, index: (Int32, UnsafePointer<Scalar>) -> Int
) -> Scalar {
  let step = 1 << 24
  return stride(from: 0, to: values.count, by: step).reduce(0) { result, first in
    let part = UnsafeBufferPointer(rebasing: values[first..<min(first + step, values.count)])
    return max(result, part[index(blasInt(part.count), part.baseAddress!)].magnitude)
  }
}

extension TriangularProduct {
  fileprivate var blas: (CBLAS_SIDE, CBLAS_TRANSPOSE) {
    switch self {
    case .transposedFromLeft: (CblasLeft, CblasTrans)
    case .fromRight: (CblasRight, CblasNoTrans)
    case .transposedFromRight: (CblasRight, CblasTrans)
    }
  }
}

/// A size as BLAS takes it. Sides of matrices are far below 2³¹: the callers' matrices fit in memory.
func blasInt(_ value: Int) -> Int32 { Int32(value) }

extension CChar {
  /// An option of a LAPACK routine.
  static func letter(_ letter: Unicode.Scalar) -> CChar { CChar(letter.value) }
}

/// Eight running sums, so that the additions do not wait for each other.
@inline(__always)
private func accumulate(count: Int, _ term: (Int) -> Double) -> Double {
  var sums = SIMD8<Double>()
  let vectorised = count - count % 8
  for start in stride(from: 0, to: vectorised, by: 8) {
    for lane in 0..<8 { sums[lane] += term(start + lane) }
  }
  var total = sums.sum()
  for index in vectorised..<count { total += term(index) }
  return total
}

@inline(__always)
private func sumOfSquares<Scalar: BinaryFloatingPoint>(_ values: UnsafeBufferPointer<Scalar>) -> Double {
  accumulate(count: values.count) { index in
    let value = Double(values[index])
    return value * value
  }
}

@inline(__always)
private func sumOfSquaredDifferences<Scalar: BinaryFloatingPoint>(
  _ a: UnsafeBufferPointer<Scalar>, _ b: UnsafeBufferPointer<Scalar>
) -> Double {
  precondition(a.count == b.count)
  return accumulate(count: a.count) { index in
    let difference = Double(a[index]) - Double(b[index])
    return difference * difference
  }
}

@inline(__always)
private func sumOfProducts<Scalar: BinaryFloatingPoint>(
  _ a: UnsafeBufferPointer<Scalar>, _ b: UnsafeBufferPointer<Scalar>
) -> Double {
  precondition(a.count == b.count)
  return accumulate(count: a.count) { Double(a[$0]) * Double(b[$0]) }
}
