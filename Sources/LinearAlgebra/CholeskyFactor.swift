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
    let status = LAPACKE_dpotrf_work(
      LAPACK_COL_MAJOR, CChar(("U" as Unicode.Scalar).value), blasInt(size), &elements, blasInt(max(1, size)))
    guard status == 0 else { throw LinearAlgebraError.notPositiveDefinite(size: size) }
    elements.withUnsafeMutableBufferPointer { buffer in
      for row in 0..<size { buffer[(row * size + row + 1)..<((row + 1) * size)].update(repeating: 0) }
    }
    lower = Matrix(rows: size, columns: size, elements: elements)
  }

  /// A factor from the rows of its lower triangle, one after the other, each up to the diagonal: `n (n + 1) / 2` values.
  public init(size: Int, packed: UnsafeBufferPointer<Double>) {
    precondition(packed.count == size * (size + 1) / 2)
    lower = Matrix(rows: size, columns: size) { target in
      target.initialize(repeating: 0)
      var place = 0
      for row in 0..<size {
        for column in 0...row { target[row * size + column] = packed[place + column] }
        place += row + 1
      }
    }
  }

  /// `Lᵀ B` for `B = [n, columns]`. O(n² · columns).
  public func transposedTimes(_ right: consuming Matrix<Double>) -> Matrix<Double> {
    apply(side: CblasLeft, transpose: CblasTrans, to: right, solving: false)
  }

  /// `B L` for `B = [rows, n]`. O(n² · rows).
  public func timesFromRight(_ left: consuming Matrix<Double>) -> Matrix<Double> {
    apply(side: CblasRight, transpose: CblasNoTrans, to: left, solving: false)
  }

  /// `L⁻ᵀ B` for `B = [n, columns]`. O(n² · columns).
  public func solvedTransposed(_ right: consuming Matrix<Double>) -> Matrix<Double> {
    apply(side: CblasLeft, transpose: CblasTrans, to: right, solving: true)
  }

  private func apply(
    side: CBLAS_SIDE, transpose: CBLAS_TRANSPOSE, to matrix: consuming Matrix<Double>, solving: Bool
  ) -> Matrix<Double> {
    let (rows, columns) = (matrix.rows, matrix.columns)
    precondition((side == CblasLeft ? rows : columns) == lower.rows)
    var elements = matrix.takeElements()
    let size = blasInt(max(1, lower.rows))
    elements.withUnsafeMutableBufferPointer { buffer in
      let call = solving ? cblas_dtrsm : cblas_dtrmm
      call(
        CblasRowMajor, side, CblasLower, transpose, CblasNonUnit, blasInt(rows), blasInt(columns), 1,
        lower.elements, size, buffer.baseAddress, blasInt(max(1, columns)))
    }
    return Matrix(rows: rows, columns: columns, elements: elements)
  }
}
