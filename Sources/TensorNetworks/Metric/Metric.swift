import LinearAlgebra

/// The norm in which the error of a matrix is measured: `‖G^½ (W−Ŵ) S^½‖_F` for second moments `G` of the gradient at
/// the layer's outputs and `S` of its inputs, or `Σ F ⊙ (W−Ŵ)²` for element-wise weights.
///
/// With both sides the identity it is the Frobenius norm; with diagonals it is the norm of FWSVD and ASVD, with `S` alone
/// that of SVD-LLM, with both that of the Kronecker-factored curvature of the network's output.
public struct Metric: Sendable, Equatable {
  /// The weight of one side of the matrix.
  public enum Side: Sendable, Equatable {
    case identity
    /// The diagonal of the second moment, not negative.
    case diagonal([Double])
    /// `[n, n]`, symmetric, positive semi-definite.
    case full(Matrix<Double>)
  }

  /// `G`, of the rows.
  public var rows: Side
  /// `S`, of the columns.
  public var columns: Side
  /// `F`, `[I, J]`, not negative: when there, the sides are not used.
  public var elements: Matrix<Float>?

  public init(rows: Side = .identity, columns: Side = .identity, elements: Matrix<Float>? = nil) {
    self.rows = rows
    self.columns = columns
    self.elements = elements
  }

  public var isIdentity: Bool { rows == .identity && columns == .identity && elements == nil }

  /// The metric with `ridge · mean(diagonal)` added to the diagonals of the sides, which makes them positive definite.
  public func regularized(rowRidge: Double, columnRidge: Double) -> Metric {
    Metric(rows: rows.regularized(rowRidge), columns: columns.regularized(columnRidge), elements: elements)
  }

  /// `G D S`, or `F ⊙ D`: half the gradient of the squared norm. O(I·J·(I + J)).
  public func applied<Scalar>(to difference: Matrix<Scalar>) -> Matrix<Scalar> {
    if let elements {
      return difference.multipliedElementwise(by: elements.converted(to: Scalar.self))
    }
    return columns.multiplied(right: true, rows.multiplied(right: false, difference))
  }
}

extension Metric.Side {
  fileprivate func regularized(_ ridge: Double) -> Metric.Side {
    switch self {
    case .identity: return self
    case .diagonal(let values):
      let mean = values.reduce(0, +) / Double(max(1, values.count))
      return mean > 0 ? .diagonal(values.map { $0 + ridge * mean }) : .identity
    case .full(var matrix):
      let mean = (0..<matrix.rows).reduce(0) { $0 + matrix[$1, $1] } / Double(max(1, matrix.rows))
      guard mean > 0 else { return .identity }
      for index in 0..<matrix.rows { matrix[index, index] += ridge * mean }
      return .full(matrix)
    }
  }

  /// `A M`, or `M A` from the right.
  fileprivate func multiplied<Scalar>(right: Bool, _ matrix: Matrix<Scalar>) -> Matrix<Scalar> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(by: values, right: right)
    case .full(let side):
      right ? matrix * side.converted(to: Scalar.self) : side.converted(to: Scalar.self) * matrix
    }
  }

  /// The trace over the number of rows, 1 for the identity.
  public var meanDiagonal: Double {
    switch self {
    case .identity: 1
    case .diagonal(let values): values.reduce(0, +) / Double(max(1, values.count))
    case .full(let matrix): (0..<matrix.rows).reduce(0) { $0 + matrix[$1, $1] } / Double(max(1, matrix.rows))
    }
  }
}

/// A triangular or diagonal root `L` of a side `A = L Lᵀ`.
enum MetricRoot {
  case identity
  case diagonal([Double])
  case triangular(CholeskyFactor)

  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  init(of side: Metric.Side) throws {
    switch side {
    case .identity: self = .identity
    case .diagonal(let values): self = .diagonal(values.map { $0.squareRoot() })
    case .full(let matrix): self = .triangular(try CholeskyFactor(of: matrix))
    }
  }

  /// `Lᵀ M`.
  func transposedTimes(_ matrix: Matrix<Double>) -> Matrix<Double> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(by: values, right: false)
    case .triangular(let factor): factor.lower.transposed() * matrix
    }
  }

  /// `M L`.
  func timesFromRight(_ matrix: Matrix<Double>) -> Matrix<Double> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(by: values, right: true)
    case .triangular(let factor): matrix * factor.lower
    }
  }

  /// `L⁻ᵀ M`.
  func inverseTransposedTimes(_ matrix: Matrix<Double>) -> Matrix<Double> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(by: values.map { $0 > 0 ? 1 / $0 : 0 }, right: false)
    case .triangular(let factor): factor.solvedTransposed(matrix)
    }
  }
}

extension Matrix {
  /// Rows (or, from the right, columns) multiplied by the values.
  fileprivate func scaled(by values: [Double], right: Bool) -> Matrix {
    let factors = values.map { Scalar($0) }
    return right ? scaled(columnsBy: factors) : transposed().scaled(columnsBy: factors).transposed()
  }
}
