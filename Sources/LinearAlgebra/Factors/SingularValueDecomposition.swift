import COpenBLAS

/// `A = U diag(σ) Vᵀ` with orthonormal columns of `U` and rows of `Vᵀ`, from the matrix itself, not from its Gram matrix: all
/// singular values are exact to about 1e-15 of the largest.
public struct SingularValueDecomposition: Sendable {
  /// `U = [m, k]`, `k = min(m, n)`.
  public let left: Matrix<Double>
  /// σ, k of them, largest first.
  public let values: [Double]
  /// `Vᵀ = [k, n]`.
  public let right: Matrix<Double>

  /// - Parameter matrix: `[m, n]`, not empty.
  /// - Throws: `LinearAlgebraError.noConvergence`, which finite input does not cause in practice.
  ///
  /// O(m · n · min(m, n)) (LAPACK's divide and conquer).
  public init(of matrix: consuming Matrix<Double>) throws {
    let (rows, columns) = (matrix.rows, matrix.columns)
    let count = min(rows, columns)
    var elements = matrix.takeElements()
    var values = Array(repeating: 0.0, count: count)
    var left = Array(repeating: 0.0, count: rows * count)
    var right = Array(repeating: 0.0, count: count * columns)
    // A row-major `A` is a column-major `Aᵀ = V diag(σ) Uᵀ`.
    let status = lapack_dgesdd(
      .letter("S"), blasInt(columns), blasInt(rows), &elements,
      blasInt(columns), &values, &right, blasInt(columns), &left, blasInt(count))
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dgesdd", status: Int(status)) }
    self.values = values
    self.left = Matrix(rows: rows, columns: count, elements: left)
    self.right = Matrix(rows: count, columns: columns, elements: right)
  }
}
