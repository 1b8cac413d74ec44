import LinearAlgebra

/// What is worth keeping of a whitened matrix: it decides the singular values and all factorisations.
public struct WhitenedGram: Sendable {
  /// `M Mᵀ`, `[n, n]` with `n = min(I, J)`, for the whitened matrix `M`, wide.
  public let matrix: Matrix<Double>
  /// `‖W‖²` in the metric without its ridges.
  public let squaredNorm: Double

  public init(matrix: Matrix<Double>, squaredNorm: Double) {
    self.matrix = matrix
    self.squaredNorm = squaredNorm
  }
}

/// A matrix in the coordinates in which its metric is the Frobenius norm, `M = L_Gᵀ W L_S`; wide, whatever the matrix is.
public struct WhitenedMatrix: Sendable {
  public let gram: WhitenedGram
  private let isTransposed: Bool
  /// Root of the side that is now the rows.
  private let root: MetricRoot
  /// `Lᵀ W` for that root, `[n, m]`, `n ≤ m`.
  private let halfWhitened: Matrix<Double>
  private let rows: Int
  private let columns: Int

  init<Scalar>(_ matrix: MatrixView<Scalar>, rows: MetricRoot, columns: MetricRoot) {
    let wide = WideMatrix(matrix.widened(), rows: rows, columns: columns)
    let products = Products(wide)
    self.init(
      wide, halfWhitened: products.half,
      gram: WhitenedGram(matrix: products.whitened.gram(), squaredNorm: products.squaredNorm))
  }

  init<Scalar>(_ matrix: MatrixView<Scalar>, rows: MetricRoot, columns: MetricRoot, gram: WhitenedGram) {
    let wide = WideMatrix(matrix.widened(), rows: rows, columns: columns)
    self.init(wide, halfWhitened: wide.short.transposedTimes(wide.matrix), gram: gram)
  }

  private init(_ wide: WideMatrix, halfWhitened: Matrix<Double>, gram: WhitenedGram) {
    self.gram = gram
    self.halfWhitened = halfWhitened
    isTransposed = wide.isTransposed
    root = wide.short
    (rows, columns) = isTransposed ? (wide.matrix.columns, wide.matrix.rows) : (wide.matrix.rows, wide.matrix.columns)
  }

  /// Singular values of `M`, largest first, `min(I, J)` of them: a factorisation of rank r has the squared error
  /// `Σ_{k>r} λ_k²` in the regularised metric. O(n³).
  /// - Throws: `LinearAlgebraError`.
  public func singularValues() throws -> [Double] {
    try SymmetricEigendecomposition.values(of: gram.matrix).map { max(0, $0).squareRoot() }
  }

  /// The factorisation of rank `rank` (lowered to what the sides allow) that is nearest to the matrix in the regularised
  /// metric, as an MPO of two sites: truncated SVD of the whitened matrix, unwhitened. Exact optimum (Eckart–Young in the
  /// metric). The core of the shorter side is an isometry, the other one central. O(n³ + n²·m).
  /// - Throws: `LinearAlgebraError`.
  public func lowRank<Scalar>(_ rank: Int, as type: Scalar.Type = Scalar.self) throws -> MPO<Scalar> {
    let shape = MPOShape.lowRank(rows: rows, columns: columns)
    let bond = shape.limitedBonds([rank])[0]
    let leading = try SymmetricEigendecomposition(of: gram.matrix).vectors.firstRows(bond)
    let qr = try QRDecomposition(of: root.inverseTransposedTimes(leading.transposed()))
    let rest = qr.r * (leading * halfWhitened)
    let factors = isTransposed ? [rest.transposed(), qr.q.transposed()] : [qr.q, rest]
    return MPO(
      shape: shape,
      cores: zip(shape.coreShapes(bonds: [bond]), factors).map {
        Core(shape: $0, elements: $1.converted(to: Scalar.self).elements)
      })
  }
}

/// A matrix `[n, m]`, `n ≤ m`, transposed if it must be, and the roots of its sides.
struct WideMatrix {
  let isTransposed: Bool
  let matrix: Matrix<Double>
  /// Of the n rows.
  let short: MetricRoot
  /// Of the m columns.
  let long: MetricRoot

  init(_ matrix: Matrix<Double>, rows: MetricRoot, columns: MetricRoot) {
    // The central core is the one with the longer side; the other one is the isometry.
    isTransposed = MPOShape.lowRank(rows: matrix.rows, columns: matrix.columns).centralIndex == 0
    self.matrix = isTransposed ? matrix.transposed() : matrix
    (short, long) = isTransposed ? (columns, rows) : (rows, columns)
  }
}

extension WhitenedMatrix {
  /// The products of a matrix with its roots; the one with the longer side, which costs most, is made once.
  struct Products {
    /// `L_shortᵀ W`.
    let half: Matrix<Double>
    /// `L_shortᵀ W L_long`.
    let whitened: Matrix<Double>
    /// In the metric without its ridges.
    let squaredNorm: Double

    init(_ wide: WideMatrix) {
      let other = wide.long.timesFromRight(wide.matrix)
      half = wide.short.transposedTimes(wide.matrix)
      let otherNorm = other.norm
      whitened = wide.short.transposedTimes(other)
      func square(_ value: Double) -> Double { value * value }
      squaredNorm = max(
        0,
        square(whitened.norm) - wide.long.ridge * square(half.norm) - wide.short.ridge * square(otherNorm)
          + wide.short.ridge * wide.long.ridge * square(wide.matrix.norm))
    }
  }
}

extension Matrix<Double> {
  /// `M Mᵀ`.
  fileprivate func gram() -> Matrix<Double> {
    var gram = GramMatrix(size: rows)
    elements.withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: columns) }
    return gram.matrix()
  }
}
