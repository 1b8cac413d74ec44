/// The precision in which the products of a Gram matrix of single-precision elements are computed, and its eigenvalues
/// where nothing but them is wanted.
///
/// Rounding changes each eigenvalue by a small part of the *largest* one. In single precision that takes half of the
/// time, and is enough as long as what is wanted of the spectrum is far above this noise.
public enum GramPrecision: Sendable {
  /// Single precision, about 7 digits.
  case single
  /// Double precision, about 16 digits.
  case double

  /// The precision that is tried first: that of the elements.
  public static func first<Scalar: LinearAlgebraScalar>(for scalar: Scalar.Type) -> GramPrecision {
    Scalar.self == Float.self ? .single : .double
  }

  /// Calls `compute` with single precision, where the elements are, and with double precision where the result is nil.
  ///
  /// - Throws: what `compute` throws, `LinearAlgebraError.notFinite` where double precision does not suffice either.
  public static func sufficient<Scalar: LinearAlgebraScalar, Result>(
    for scalar: Scalar.Type, _ compute: (GramPrecision) throws -> Result?
  ) throws -> Result {
    if first(for: Scalar.self) == .single, let result = try compute(.single) { return result }
    guard let result = try compute(.double) else { throw LinearAlgebraError.notFinite }
    return result
  }

  /// Whether a sum of `count` eigenvalues is known to a thousandth, `largest` being the largest eigenvalue of all.
  public func resolves(_ sum: Double, of count: Int, largest: Double) -> Bool {
    switch self {
    case .single: sum >= 1000 * Self.singleNoise * Double(count) * largest
    case .double: !sum.isNaN
    }
  }

  /// Whether sums of squares up to `trace` neither overflow nor vanish.
  func holds(trace: Double) -> Bool {
    switch self {
    case .single: (1e-20...1e30).contains(trace)
    case .double: true
    }
  }

  /// What rounding makes of an eigenvalue, relative to the largest: twice what was measured on trained weights.
  private static var singleNoise: Double { 0x1p-22 }
}
