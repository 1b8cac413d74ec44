import LinearAlgebra

/// What is worth keeping of a whitened matrix `M`, wide: it decides its singular values and all factorisations.
public struct WhitenedSpectrum: Sendable {
  /// Of `M Mᵀ`, `[n, n]` with `n = min(I, J)`.
  public let reduction: TridiagonalReduction
  /// `‖W‖²` in the metric without its ridges.
  public let squaredNorm: Double
  /// In which `M` was computed.
  public let precision: GramPrecision

  /// A spectrum from the tridiagonal form of `M Mᵀ`.
  public init(reduction: TridiagonalReduction, squaredNorm: Double, precision: GramPrecision) {
    (self.reduction, self.squaredNorm, self.precision) = (reduction, squaredNorm, precision)
  }

  /// Singular values of `M`, largest first: a factorisation of rank r has the squared error `Σ_{k>r} λ_k²` in the regularised
  /// metric.
  /// - Throws: `LinearAlgebraError`.
  public func singularValues() throws -> [Double] { try reduction.eigenvalues().map { max(0, $0).squareRoot() } }
}
