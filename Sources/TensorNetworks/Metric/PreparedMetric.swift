import LinearAlgebra

/// A metric whose sides are regularised and factored, once: it gives the singular values of the whitened matrix, the best
/// factorisation of a rank, and the error without the ridges.
public enum PreparedMetric: Sendable {
  /// Roots of `G`, of the rows, and `S`, of the columns.
  case sides(rows: MetricRoot, columns: MetricRoot)
  /// Weights `F`, `[I, J]`: there is nothing to whiten.
  case elements(Matrix<Float>)

  /// O(I³ + J³) for full sides.
  /// - Parameters:
  ///   - rowRidge: relative to the mean of the diagonal of `G`.
  ///   - columnRidge: relative to that of `S`.
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public init(_ metric: Metric, rowRidge: Double = 0, columnRidge: Double = 0) throws {
    switch metric {
    case .frobenius: self = .sides(rows: .identity, columns: .identity)
    case .sides(let rows, let columns):
      self = .sides(
        rows: try MetricRoot(of: rows, ridge: rowRidge), columns: try MetricRoot(of: columns, ridge: columnRidge))
    case .elements(let weights): self = .elements(weights)
    }
  }

  /// A matrix in the coordinates in which the regularised metric is the Frobenius norm; nil for weights of elements, for
  /// which there are none. O(I·J·(I + J)).
  public func whitened<Scalar>(_ matrix: MatrixView<Scalar>) -> WhitenedMatrix? {
    guard case .sides(let rows, let columns) = self else { return nil }
    return WhitenedMatrix(matrix, rows: rows, columns: columns)
  }

  /// The same when the Gram matrix of the result is known already: without the product with the longer side.
  public func whitened<Scalar>(_ matrix: MatrixView<Scalar>, gram: WhitenedGram) -> WhitenedMatrix? {
    guard case .sides(let rows, let columns) = self else { return nil }
    return WhitenedMatrix(matrix, rows: rows, columns: columns, gram: gram)
  }

  /// The squared norm of `D`, `[I, J]`, in the metric without its ridges. O(I·J·(I + J)).
  ///
  /// Of sides it is `‖L_Gᵀ D L_S‖² − r_S‖L_Gᵀ D‖² − r_G‖D L_S‖² + r_G r_S‖D‖²`, which is exact to rounding of the first term.
  public func squaredNorm(of difference: Matrix<Double>) -> Double {
    switch self {
    case .sides(let rows, let columns):
      WhitenedMatrix.Products(WideMatrix(difference, rows: rows, columns: columns)).squaredNorm
    case .elements(let weights): Metric.elements(weights).squaredNorm(of: difference)
    }
  }

  /// The relative error of an operator in the metric without its ridges; 0 where the metric does not see the matrix.
  /// - Parameter squaredNorm: that of the matrix, when it is known.
  public func relativeError<Scalar>(
    of mpo: MPO<Scalar>, to view: MatrixView<Scalar>, squaredNorm: Double? = nil
  ) -> Double {
    relativeError(of: mpo.matrix(rows: view.rows, columns: view.columns), to: view, squaredNorm: squaredNorm)
  }

  /// The relative error of a matrix that stands for another in the metric without its ridges; 0 where the metric does not
  /// see the matrix.
  /// - Parameter squaredNorm: that of the matrix, when it is known.
  public func relativeError<Scalar>(
    of restored: Matrix<Scalar>, to view: MatrixView<Scalar>, squaredNorm: Double? = nil
  ) -> Double {
    // Where squares would vanish or overflow, both matrices are divided by the norm.
    let norm = view.norm
    let isInRange = norm == 0 || (1e-100...1e100).contains(norm)
    func scaled(_ matrix: Matrix<Double>) -> Matrix<Double> {
      isInRange
        ? matrix : Matrix(rows: matrix.rows, columns: matrix.columns, elements: matrix.elements.map { $0 / norm })
    }
    let matrix = scaled(view.widened())
    let total = isInRange ? squaredNorm ?? self.squaredNorm(of: matrix) : self.squaredNorm(of: matrix)
    guard total > 0 else { return 0 }
    var difference = matrix
    difference.subtract(scaled(restored.converted(to: Double.self)))
    return (max(0, self.squaredNorm(of: difference)) / total).squareRoot()
  }
}

extension MatrixView {
  /// A copy in double precision.
  func widened() -> Matrix<Double> {
    Matrix<Double>(rows: rows, columns: columns) { target in
      Scalar.widen(elements.baseAddress!, count: elements.count, into: target.baseAddress!)
    }
  }
}
