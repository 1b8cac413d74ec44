import LinearAlgebra

/// A triangular or diagonal root `L` of one side of a metric with its ridge, `A + r·1 = L Lᵀ`: what whitening, unwhitening and
/// measuring without the ridge need of the side, from one factorisation.
public struct MetricRoot: Sendable {
  /// The root itself.
  public enum Factor: Sendable {
    /// `L = 1`.
    case identity
    /// The diagonal of `L`, `[n]`.
    case diagonal([Double])
    /// A lower triangular `L`, `[n, n]`.
    case triangular(CholeskyFactor)
  }

  /// The root `L`.
  public let factor: Factor
  /// `r`, what was added to every element of the diagonal.
  public let ridge: Double

  /// The identity, `A = 1`.
  public static let identity = MetricRoot(factor: .identity, ridge: 0)
  /// Of a side that is zero, which whitens as the identity and measures nothing: `A + 1 = 1`.
  public static let zero = MetricRoot(factor: .identity, ridge: 1)

  /// A root that is known already, and the ridge that is part of it.
  public init(factor: Factor, ridge: Double) {
    self.factor = factor
    self.ridge = ridge
  }

  /// Factors a side. O(n³ / 3).
  /// - Parameters:
  ///   - side: the side `A` that this is the root of.
  ///   - ridge: relative to the mean of the diagonal.
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public init(of side: Metric.Side, ridge: Double) throws {
    switch side {
    case .identity: self = .identity
    case .diagonal:
      guard case .diagonal(let values) = side.regularized(ridge) else {
        self = .zero
        return
      }
      self.init(factor: .diagonal(values.map { $0.squareRoot() }), ridge: ridge * side.meanDiagonal)
    case .full(let matrix): try self.init(factoring: matrix, ridge: ridge)
    }
  }

  /// Factors the second moment of a side, in its own memory where nobody else holds it. O(n³ / 3).
  /// - Parameters:
  ///   - matrix: the second moment `A`, `[n, n]`.
  ///   - ridge: relative to the mean of the diagonal.
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public init(factoring matrix: consuming Matrix<Double>, ridge: Double) throws {
    let size = matrix.rows
    let mean = (0..<size).reduce(0) { $0 + matrix[$1, $1] } / Double(max(1, size))
    guard mean > 0 else {
      self = .zero
      return
    }
    for index in 0..<size { matrix[index, index] += ridge * mean }
    self.init(factor: .triangular(try CholeskyFactor(of: matrix)), ridge: ridge * mean)
  }

  /// The root with at least a ridge, relative to the mean of the diagonal of `A`. O(n³) where the ridge grows.
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  func withRidge(atLeast relative: Double) throws -> MetricRoot {
    guard case .triangular(let factor) = factor else { return self }
    let size = factor.lower.size
    let mean = meanDiagonal(of: factor) - ridge
    guard relative * mean > ridge else { return self }
    // What is added is far above what single precision loses.
    var gram = GramMatrix(size: size, precision: .single)
    factor.lower.matrix(as: Float.self).elements
      .withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: size) }
    var matrix = gram.matrix()
    for index in 0..<size { matrix[index, index] += relative * mean - ridge }
    return MetricRoot(factor: .triangular(try CholeskyFactor(of: matrix)), ridge: relative * mean)
  }

  /// Of `L Lᵀ`.
  func meanDiagonal(of factor: CholeskyFactor) -> Double {
    factor.lower.packed.withUnsafeBufferPointer { Double.squaredNorm($0) } / Double(max(1, factor.lower.size))
  }

  /// The root in a precision, for several products.
  func applied<Scalar>(as type: Scalar.Type) -> AppliedRoot<Scalar> {
    switch factor {
    case .identity: .identity
    case .diagonal(let values): .diagonal(values.map { Scalar($0) })
    case .triangular(let factor): .triangular(factor.lower.matrix(as: Scalar.self))
    }
  }

  /// `Lᵀ M`, in the precision of `M`.
  func transposedTimes<Scalar>(_ matrix: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    applied(as: Scalar.self).transposedTimes(matrix)
  }

  /// `M L`, in the precision of `M`.
  func timesFromRight<Scalar>(_ matrix: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    applied(as: Scalar.self).timesFromRight(matrix)
  }

  /// `M Lᵀ`, in the precision of `M`.
  func timesTransposed<Scalar>(_ matrix: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    applied(as: Scalar.self).timesTransposed(matrix)
  }

  /// `L⁻ᵀ M`.
  func inverseTransposedTimes(_ matrix: consuming Matrix<Double>) -> Matrix<Double> {
    switch factor {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(rowsBy: values.map { $0 > 0 ? 1 / $0 : 0 })
    case .triangular(let factor): factor.solvedTransposed(matrix)
    }
  }
}

/// A root `L` in the precision of what it is multiplied with.
enum AppliedRoot<Scalar: LinearAlgebraScalar> {
  case identity
  case diagonal([Scalar])
  /// `[n, n]`, lower triangular.
  case triangular(Matrix<Scalar>)

  /// `Lᵀ M`.
  func transposedTimes(_ matrix: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(rowsBy: values)
    case .triangular(let lower): lower.triangularProduct(.transposedFromLeft, with: matrix)
    }
  }

  /// `M L`.
  func timesFromRight(_ matrix: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(columnsBy: values)
    case .triangular(let lower): lower.triangularProduct(.fromRight, with: matrix)
    }
  }

  /// `M Lᵀ`.
  func timesTransposed(_ matrix: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(columnsBy: values)
    case .triangular(let lower): lower.triangularProduct(.transposedFromRight, with: matrix)
    }
  }
}
