import LinearAlgebra

/// The norm in which the error `D = W − Ŵ` of a matrix `[I, J]` is measured.
///
/// With both sides of `.sides` diagonal it is the norm of FWSVD and ASVD, with the inputs' side alone that of SVD-LLM, with
/// both that of the Kronecker-factored curvature of the network's output.
public enum Metric: Sendable, Equatable {
  /// `‖D‖_F`.
  case frobenius
  /// `‖G^½ D S^½‖_F` for second moments `G`, of the rows, and `S`, of the columns: for a linear layer those of the gradient
  /// at its outputs and of its inputs.
  case sides(rows: Side, columns: Side)
  /// `√(Σ F ⊙ D²)` for weights `F`, `[I, J]`, not negative.
  case elements(Matrix<Float>)

  /// The weight of one side of the matrix.
  public enum Side: Sendable, Equatable {
    /// No weight: every row or column counts the same.
    case identity
    /// The diagonal of the second moment, not negative.
    case diagonal([Double])
    /// `[n, n]`, symmetric, positive semi-definite.
    case full(Matrix<Double>)
  }

  /// `.frobenius` when both sides are the identity, else `.sides`.
  public init(rows: Side = .identity, columns: Side = .identity) {
    self = rows == .identity && columns == .identity ? .frobenius : .sides(rows: rows, columns: columns)
  }

  /// The metric with `ridge · mean(diagonal)` added to the diagonals of the sides, which makes them positive definite; a
  /// side that is zero becomes the identity. Weights of elements stay as they are.
  public func regularized(rowRidge: Double, columnRidge: Double) -> Metric {
    guard case .sides(let rows, let columns) = self else { return self }
    return Metric(rows: rows.regularized(rowRidge), columns: columns.regularized(columnRidge))
  }

  /// `G D S`, or `F ⊙ D`: half the gradient of the squared norm. O(I·J·(I + J)).
  public func applied<Scalar>(to difference: Matrix<Scalar>) -> Matrix<Scalar> {
    AppliedMetric(self).applied(to: difference)
  }

  /// `⟨D, G D S⟩`, or `Σ F ⊙ D²`. O(I·J·(I + J)).
  public func squaredNorm(of difference: Matrix<Double>) -> Double {
    let weighted = applied(to: difference)
    return difference.elements.withUnsafeBufferPointer { a in
      weighted.elements.withUnsafeBufferPointer { Double.dot(a, $0) }
    }
  }
}

extension Metric.Side {
  /// The trace over the number of rows, 1 for the identity.
  public var meanDiagonal: Double {
    switch self {
    case .identity: 1
    case .diagonal(let values): values.reduce(0, +) / Double(max(1, values.count))
    case .full(let matrix): (0..<matrix.rows).reduce(0) { $0 + matrix[$1, $1] } / Double(max(1, matrix.rows))
    }
  }

  /// The side with `ridge · meanDiagonal` on its diagonal; the identity when the mean is not positive.
  public func regularized(_ ridge: Double) -> Metric.Side {
    let mean = meanDiagonal
    switch self {
    case .identity: return self
    case .diagonal(let values): return mean > 0 ? .diagonal(values.map { $0 + ridge * mean }) : .identity
    case .full(var matrix):
      guard mean > 0 else { return .identity }
      for index in 0..<matrix.rows { matrix[index, index] += ridge * mean }
      return .full(matrix)
    }
  }
}

/// A metric in the precision of a computation that applies it many times.
enum AppliedMetric<Scalar: LinearAlgebraScalar> {
  case frobenius
  case sides(rows: Side, columns: Side)
  case elements(Matrix<Scalar>)

  enum Side {
    case identity
    case diagonal([Double])
    case full(Matrix<Scalar>)

    init(_ side: Metric.Side) {
      switch side {
      case .identity: self = .identity
      case .diagonal(let values): self = .diagonal(values)
      case .full(let matrix): self = .full(matrix.converted(to: Scalar.self))
      }
    }
  }

  init(_ metric: Metric) {
    switch metric {
    case .frobenius: self = .frobenius
    case .sides(let rows, let columns): self = .sides(rows: Side(rows), columns: Side(columns))
    case .elements(let weights): self = .elements(weights.converted(to: Scalar.self))
    }
  }

  /// `G D S`, or `F ⊙ D`.
  func applied(to difference: Matrix<Scalar>) -> Matrix<Scalar> {
    switch self {
    case .frobenius: return difference
    case .elements(let weights): return difference.multipliedElementwise(by: weights)
    case .sides(let rows, let columns):
      let half =
        switch rows {
        case .identity: difference
        case .diagonal(let values): difference.scaled(rowsBy: values.map { Scalar($0) })
        case .full(let side): side * difference
        }
      return switch columns {
      case .identity: half
      case .diagonal(let values): half.scaled(columnsBy: values.map { Scalar($0) })
      case .full(let side): half * side
      }
    }
  }
}
