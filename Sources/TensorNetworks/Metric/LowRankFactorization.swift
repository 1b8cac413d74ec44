import LinearAlgebra

extension MPO {
  /// The factorisation of rank `rank` (lowered to what the sides allow) that is nearest to `matrix` in the metric, as an
  /// MPO of two sites: truncated SVD of the whitened matrix, unwhitened. Exact optimum (Eckart–Young in the metric).
  ///
  /// - Parameter metric: regularised; without element weights.
  /// - Throws: `LinearAlgebraError`.
  public init(lowRank matrix: MatrixView<Scalar>, rank: Int, metric: Metric) throws {
    let shape = MPOShape.lowRank(rows: matrix.rows, columns: matrix.columns)
    let bond = shape.limitedBonds([rank])[0]
    let whitened = try WhitenedMatrix(matrix, metric: metric)
    let factors = try whitened.factors(rank: bond)
    self.init(
      shape: shape,
      cores: zip(shape.coreShapes(bonds: [bond]), [factors.left, factors.right]).map {
        Core(shape: $0, elements: $1.converted(to: Scalar.self).elements)
      })
  }
}

/// A matrix in the coordinates in which its metric is the Frobenius norm, `M = L_Gᵀ W L_S`; wide, whatever the matrix is.
struct WhitenedMatrix {
  private let isTransposed: Bool
  /// Root of the side that is now the rows.
  private let root: MetricRoot
  /// `L_Gᵀ W`, `[n, m]`, `n ≤ m`.
  private let halfWhitened: Matrix<Double>
  /// `M Mᵀ`.
  private let gram: Matrix<Double>

  init<Scalar>(_ matrix: MatrixView<Scalar>, metric: Metric) throws {
    // The central core is the one with the longer side; the other one is the isometry.
    isTransposed = MPOShape.lowRank(rows: matrix.rows, columns: matrix.columns).centralIndex == 0
    var wide = Matrix<Double>(rows: matrix.rows, columns: matrix.columns) { target in
      Scalar.widen(matrix.elements.baseAddress!, count: matrix.elements.count, into: target.baseAddress!)
    }
    if isTransposed { wide = wide.transposed() }
    root = try MetricRoot(of: isTransposed ? metric.columns : metric.rows)
    halfWhitened = root.transposedTimes(wide)
    let whitened = try MetricRoot(of: isTransposed ? metric.rows : metric.columns).timesFromRight(halfWhitened)
    var gram = GramMatrix(size: whitened.rows)
    whitened.elements.withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: whitened.columns) }
    self.gram = gram.matrix()
  }

  /// Singular values of `M`, largest first.
  func singularValues() throws -> [Double] {
    try SymmetricEigendecomposition.values(of: gram).map { max(0, $0).squareRoot() }
  }

  /// `[I, rank]` and `[rank, J]`, the shorter side's factor an isometry.
  func factors(rank: Int) throws -> (left: Matrix<Double>, right: Matrix<Double>) {
    let leading = try SymmetricEigendecomposition(of: gram).vectors.firstRows(rank)
    let qr = try QRDecomposition(of: root.inverseTransposedTimes(leading.transposed()))
    let rest = qr.r * (leading * halfWhitened)
    return isTransposed ? (rest.transposed(), qr.q.transposed()) : (qr.q, rest)
  }
}

extension Metric {
  /// The singular values of the whitened matrix, largest first, `min(I, J)` of them: a factorisation of rank r has the
  /// squared error `Σ_{k>r} λ_k²` in the metric.
  /// - Throws: `LinearAlgebraError`.
  public func singularValues<Scalar>(of matrix: MatrixView<Scalar>) throws -> [Double] {
    try WhitenedMatrix(matrix, metric: self).singularValues()
  }
}
