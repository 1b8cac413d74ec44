import LinearAlgebra

/// A matrix `[n, m]`, `n ≤ m`, transposed if it must be, and the roots of its sides. In the coordinates of the whitened matrix
/// `M = L_shortᵀ W L_long` the regularised metric is the Frobenius norm.
struct WhitenedMatrix<Element: LinearAlgebraScalar> {
  private let isTransposed: Bool
  private let matrix: Matrix<Element>
  /// Of the n rows.
  private let short: MetricRoot
  /// Of the m columns.
  private let long: MetricRoot

  init(_ matrix: Matrix<Element>, rows: MetricRoot, columns: MetricRoot) {
    // The central core is the one with the longer side; the other one is the isometry.
    isTransposed = MPOShape.lowRank(rows: matrix.rows, columns: matrix.columns).centralIndex == 0
    self.matrix = isTransposed ? matrix.transposed() : matrix
    (short, long) = isTransposed ? (columns, rows) : (rows, columns)
  }

  /// `M`, and the squared norm of `W` in the metric without its ridges:
  /// `‖L_shortᵀ W L_long‖² − r_long‖L_shortᵀ W‖² − r_short‖W L_long‖² + r_short r_long‖W‖²`, which is exact to rounding of the
  /// first term.
  private func whitened() -> (matrix: Matrix<Element>, squaredNorm: Double) {
    func square(_ value: Double) -> Double { value * value }
    let (ridge, otherRidge) = (self.short.ridge, self.long.ridge)
    let (short, long) = (self.short.applied(as: Element.self), self.long.applied(as: Element.self))
    let other = long.timesFromRight(matrix)
    var ridges = ridge * square(other.norm) - ridge * otherRidge * square(matrix.norm)
    if otherRidge != 0 { ridges += otherRidge * square(short.transposedTimes(matrix).norm) }
    let whitened = short.transposedTimes(other)
    return (whitened, max(0, square(whitened.norm) - ridges))
  }

  /// The squared norm of `W` in the metric without its ridges; nil where the precision does not suffice, because the ridges
  /// are nearly all of it. O(n·m·(n + m)).
  func squaredNorm(_ precision: GramPrecision) -> Double? {
    let (matrix, squaredNorm) = whitened()
    return precision.decides(squaredNorm, partOf: matrix.norm) ? squaredNorm : nil
  }

  /// The spectrum of `M Mᵀ`, in double precision; rounding of `M` in single precision changes a singular value by about 1e-7 of
  /// the largest. nil where the precision does not suffice. O(n·m·(n + m) + n³).
  func spectrum(_ precision: GramPrecision) throws -> WhitenedSpectrum? {
    let (whitened, squaredNorm) = whitened()
    guard precision.decides(squaredNorm, partOf: whitened.norm) else { return nil }
    var gram = GramMatrix(size: whitened.rows)
    whitened.elements.withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: whitened.columns) }
    return WhitenedSpectrum(
      reduction: try TridiagonalReduction(of: gram.matrix()), squaredNorm: squaredNorm, precision: precision)
  }

  /// The factorisation of rank `rank` that is nearest to the matrix in the regularised metric: truncated SVD of the whitened
  /// matrix, unwhitened. Exact optimum (Eckart–Young in the metric). O(n³ + n²·m).
  func lowRank<Scalar>(_ rank: Int, spectrum: WhitenedSpectrum, as type: Scalar.Type) throws -> MPO<Scalar> {
    let (rows, columns) = isTransposed ? (matrix.columns, matrix.rows) : (matrix.rows, matrix.columns)
    let shape = MPOShape.lowRank(rows: rows, columns: columns)
    let bond = shape.limitedBonds([rank])[0]
    let leading = try spectrum.reduction.leadingEigenvectors(bond)
    let qr = try QRDecomposition(of: short.inverseTransposedTimes(leading.transposed()))
    // The small products first: `R (V Lᵀ) W`.
    let rest = qr.r.converted(to: Element.self) * short.timesTransposed(leading.converted(to: Element.self)) * matrix
    let isometry = qr.q.converted(to: Scalar.self)
    let central = rest.converted(to: Scalar.self)
    let factors = isTransposed ? [central.transposed(), isometry.transposed()] : [isometry, central]
    return MPO(
      shape: shape,
      cores: zip(shape.coreShapes(bonds: [bond]), factors).map { MPOCore(shape: $0, elements: $1.elements) })
  }
}

extension GramPrecision {
  /// Whether rounding leaves enough of a squared norm from which others were subtracted.
  fileprivate func decides(_ squaredNorm: Double, partOf norm: Double) -> Bool {
    self == .double || ((1e-20...1e20).contains(norm) && squaredNorm >= 1e-3 * norm * norm)
  }
}
