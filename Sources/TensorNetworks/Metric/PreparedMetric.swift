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
  ///   - metric: the metric without ridges.
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

  /// What decides the singular values and the factorisations of a matrix in the regularised metric; nil for weights of
  /// elements, which whiten nothing. Single-precision matrices are whitened in single precision.
  /// O(I·J·(I + J) + min(I, J)³).
  /// - Throws: `LinearAlgebraError`.
  public func spectrum<Scalar>(of view: MatrixView<Scalar>) throws -> WhitenedSpectrum? {
    guard case .sides(let rows, let columns) = self else { return nil }
    // The result is never nil: double precision suffices for what is finite.
    let spectrum: WhitenedSpectrum = try GramPrecision.sufficient(for: Scalar.self) { precision in
      switch precision {
      case .single: try WhitenedMatrix<Float>(view.copy(), rows: rows, columns: columns).spectrum(.single)
      case .double: try WhitenedMatrix<Double>(view.copy(), rows: rows, columns: columns).spectrum(.double)
      }
    }
    return spectrum
  }

  /// The factorisation of rank `rank` (lowered to what the sides allow) that is nearest to the matrix in the regularised
  /// metric, as an MPO of two sites. The core of the shorter side is an isometry, the other one central. nil for weights of
  /// elements. O(I·J·min(I, J) + min(I, J)³), and O(I·J·(I + J)) where the spectrum is not known.
  /// - Parameters:
  ///   - view: the matrix, `[I, J]`.
  ///   - rank: of the factorisation.
  ///   - spectrum: of this matrix, when it is known.
  /// - Throws: `LinearAlgebraError`.
  public func lowRank<Scalar>(
    of view: MatrixView<Scalar>, rank: Int, spectrum: WhitenedSpectrum? = nil
  ) throws -> MPO<Scalar>? {
    guard case .sides(let rows, let columns) = self else { return nil }
    guard let spectrum = try spectrum ?? self.spectrum(of: view) else { return nil }
    return switch spectrum.precision {
    case .single:
      try WhitenedMatrix<Float>(view.copy(), rows: rows, columns: columns)
        .lowRank(rank, spectrum: spectrum, as: Scalar.self)
    case .double:
      try WhitenedMatrix<Double>(view.copy(), rows: rows, columns: columns)
        .lowRank(rank, spectrum: spectrum, as: Scalar.self)
    }
  }

  /// The squared norm of `D`, `[I, J]`, in the metric without its ridges, of single-precision matrices in single precision
  /// where that suffices. O(I·J·(I + J)).
  public func squaredNorm<Scalar>(of difference: Matrix<Scalar>) -> Double {
    switch self {
    case .sides(let rows, let columns):
      return WhitenedMatrix(difference, rows: rows, columns: columns).squaredNorm(.first(for: Scalar.self))
        ?? squaredNorm(of: difference.converted(to: Double.self))
    case .elements(let weights): return Metric.elements(weights).squaredNorm(of: difference.converted(to: Double.self))
    }
  }

  /// The squared norm of a matrix in the metric without its ridges. O(I·J·(I + J)).
  public func squaredNorm<Scalar>(of view: MatrixView<Scalar>) -> Double {
    squaredNorm(of: view.copy() as Matrix<Scalar>)
  }

  /// The relative error of an operator in the metric without its ridges; 0 where the metric does not see the matrix.
  /// - Parameters:
  ///   - mpo: the operator whose error is measured.
  ///   - view: the matrix, `[I, J]`.
  ///   - squaredNorm: that of the matrix, when it is known.
  public func relativeError<Scalar>(
    of mpo: MPO<Scalar>, to view: MatrixView<Scalar>, squaredNorm: Double? = nil
  ) -> Double {
    relativeError(of: mpo.matrix(rows: view.rows, columns: view.columns), to: view, squaredNorm: squaredNorm)
  }

  /// The relative error of a matrix that stands for another in the metric without its ridges; 0 where the metric does not
  /// see the matrix.
  /// - Parameters:
  ///   - restored: the matrix whose error is measured, `[I, J]`.
  ///   - view: the matrix, `[I, J]`.
  ///   - squaredNorm: that of the matrix, when it is known.
  public func relativeError<Scalar>(
    of restored: Matrix<Scalar>, to view: MatrixView<Scalar>, squaredNorm: Double? = nil
  ) -> Double {
    // Where squares would vanish or overflow, both matrices are divided by the norm.
    let norm = view.norm
    let isInRange = norm == 0 || (1e-100...1e100).contains(norm)
    func scaled(_ matrix: Matrix<Scalar>) -> Matrix<Scalar> {
      isInRange
        ? matrix
        : Matrix(
          rows: matrix.rows, columns: matrix.columns, elements: matrix.elements.map { Scalar(Double($0) / norm) })
    }
    var difference: Matrix<Scalar> = scaled(view.copy())
    let total = (isInRange ? squaredNorm : nil) ?? self.squaredNorm(of: difference)
    guard total > 0 else { return 0 }
    difference.subtract(scaled(restored))
    return (max(0, self.squaredNorm(of: difference)) / total).squareRoot()
  }
}

extension MatrixView {
  /// A copy in some precision.
  func copy<Element: LinearAlgebraScalar>() -> Matrix<Element> {
    Matrix<Element>(rows: rows, columns: columns) { target in
      guard let source = elements.baseAddress, let target = target.baseAddress else { return }
      if let target = target as? UnsafeMutablePointer<Scalar> {
        target.update(from: source, count: elements.count)
      } else if let target = target as? UnsafeMutablePointer<Double> {
        Scalar.widen(source, count: elements.count, into: target)
      } else {
        for index in elements.indices { target[index] = Element(elements[index]) }
      }
    }
  }
}
