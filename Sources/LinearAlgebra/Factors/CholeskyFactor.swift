import COpenBLAS

/// The lower triangular `L` of a symmetric positive definite matrix `A = L Lᵀ`.
public struct CholeskyFactor: Sendable, Equatable {
  /// `L`, `[n, n]`.
  public let lower: LowerTriangle

  /// O(n³ / 3). Of `matrix`, `[n, n]`, the lower triangle is looked at.
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public init(of matrix: consuming Matrix<Double>) throws {
    let size = matrix.rows
    var elements = matrix.takeElements()
    // By columns the lower triangle is the upper one, and its factor `U = Lᵀ` lies where `L` lies by rows.
    let status = lapack_dpotrf(.letter("U"), blasInt(size), &elements, blasInt(max(1, size)))
    guard status == 0 else { throw LinearAlgebraError.notPositiveDefinite(size: size) }
    lower = LowerTriangle(of: elements, size: size)
  }

  /// A factor that is known already.
  public init(lower: LowerTriangle) { self.lower = lower }

  /// `L⁻ᵀ B` for `B = [n, columns]`. O(n² · columns).
  public func solvedTransposed(_ right: consuming Matrix<Double>) -> Matrix<Double> {
    lower.matrix().triangularProduct(.transposedFromLeft, with: right, solving: true)
  }

  /// `B A⁻¹` for `B = [rows, n]`. O(n² · rows).
  public func solvedFromRight(_ left: consuming Matrix<Double>) -> Matrix<Double> {
    let (rows, columns) = (left.rows, left.columns)
    precondition(columns == lower.size)
    var elements = left.takeElements()
    guard rows > 0, columns > 0 else { return Matrix(rows: rows, columns: columns, elements: elements) }
    // By columns `B` is `Bᵀ`, and `A⁻¹ Bᵀ` the transpose of what is wanted.
    let status = lapack_dpotrs(
      .letter("U"), blasInt(columns), blasInt(rows), lower.matrix().elements, blasInt(columns), &elements,
      blasInt(columns))
    precondition(status == 0, "dpotrs fails for illegal arguments only")
    return Matrix(rows: rows, columns: columns, elements: elements)
  }
}

extension Matrix {
  /// The product of this lower triangular `L`, `[n, n]`, with `B`: `Lᵀ B` for `B = [n, columns]`, `B L` and `B Lᵀ` for
  /// `B = [rows, n]`; or, `solving`, that of its inverse. What is above the diagonal is not looked at. O(n² · columns), O(n² · rows).
  public func triangularProduct(
    _ product: TriangularProduct, with other: consuming Matrix, solving: Bool = false
  ) -> Matrix {
    let (rows, columns) = (other.rows, other.columns)
    precondition((product == .transposedFromLeft ? rows : columns) == self.rows)
    var elements = other.takeElements()
    elements.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      Scalar.applyTriangle(self.elements, product, solving: solving, to: base, rows: rows, columns: columns)
    }
    return Matrix(rows: rows, columns: columns, elements: elements)
  }
}
