import COpenBLAS

/// The lower triangular `L` of a symmetric positive definite matrix `A = L Lᵀ`.
public struct CholeskyFactor: Sendable, Equatable {
  /// `[n, n]`, zeros above the diagonal.
  public let lower: Matrix<Double>

  /// O(n³ / 3). Of `matrix`, `[n, n]`, the lower triangle is looked at.
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public init(of matrix: consuming Matrix<Double>) throws {
    let size = matrix.rows
    var elements = matrix.takeElements()
    // By columns the lower triangle is the upper one, and its factor `U = Lᵀ` lies where `L` lies by rows.
    let status = lapack_dpotrf(.letter("U"), blasInt(size), &elements, blasInt(max(1, size)))
    guard status == 0 else { throw LinearAlgebraError.notPositiveDefinite(size: size) }
    elements.withUnsafeMutableBufferPointer { buffer in
      for row in 0..<size { buffer[(row * size + row + 1)..<((row + 1) * size)].update(repeating: 0) }
    }
    lower = Matrix(rows: size, columns: size, elements: elements)
  }

  /// A factor from the rows of its lower triangle, one after the other, each up to the diagonal: `n (n + 1) / 2` values.
  public init(size: Int, packed: UnsafeBufferPointer<Double>) {
    lower = Matrix(lowerTriangle: packed, size: size)
  }

  /// `Lᵀ B` for `B = [n, columns]`, in its precision. O(n² · columns).
  public func transposedTimes<Scalar>(_ right: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    apply(.transposedFromLeft, to: right, solving: false)
  }

  /// `B L` for `B = [rows, n]`, in its precision. O(n² · rows).
  public func timesFromRight<Scalar>(_ left: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    apply(.fromRight, to: left, solving: false)
  }

  /// `L⁻ᵀ B` for `B = [n, columns]`, in its precision. O(n² · columns).
  public func solvedTransposed<Scalar>(_ right: consuming Matrix<Scalar>) -> Matrix<Scalar> {
    apply(.transposedFromLeft, to: right, solving: true)
  }

  /// `B A⁻¹` for `B = [rows, n]`. O(n² · rows).
  public func solvedFromRight(_ left: consuming Matrix<Double>) -> Matrix<Double> {
    let (rows, columns) = (left.rows, left.columns)
    precondition(columns == lower.rows)
    var elements = left.takeElements()
    guard rows > 0, columns > 0 else { return Matrix(rows: rows, columns: columns, elements: elements) }
    // By columns `B` is `Bᵀ`, and `A⁻¹ Bᵀ` the transpose of what is wanted.
    let status = lapack_dpotrs(
      .letter("U"), blasInt(columns), blasInt(rows), lower.elements, blasInt(columns), &elements, blasInt(columns))
    precondition(status == 0, "dpotrs fails for illegal arguments only")
    return Matrix(rows: rows, columns: columns, elements: elements)
  }

  private func apply<Scalar>(
    _ product: TriangularProduct, to matrix: consuming Matrix<Scalar>, solving: Bool
  ) -> Matrix<Scalar> {
    let (rows, columns) = (matrix.rows, matrix.columns)
    precondition((product == .fromRight ? columns : rows) == lower.rows)
    let triangle = lower.converted(to: Scalar.self)
    var elements = matrix.takeElements()
    elements.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      Scalar.applyTriangle(triangle.elements, product, solving: solving, to: base, rows: rows, columns: columns)
    }
    return Matrix(rows: rows, columns: columns, elements: elements)
  }
}
