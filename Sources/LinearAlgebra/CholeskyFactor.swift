import COpenBLAS

/// The lower triangular `L` of a symmetric positive definite matrix `A = L Lᵀ`.
public struct CholeskyFactor: Sendable, Equatable {
  /// `[n, n]`, zeros above the diagonal.
  public let lower: Matrix<Double>

  /// O(n³ / 3).
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public init(of matrix: Matrix<Double>) throws {
    var elements = matrix.elements
    let size = matrix.rows
    let status = LAPACKE_dpotrf_work(
      LAPACK_ROW_MAJOR, CChar(("L" as Unicode.Scalar).value), blasInt(size), &elements, blasInt(size))
    guard status == 0 else { throw LinearAlgebraError.notPositiveDefinite(size: size) }
    elements.withUnsafeMutableBufferPointer { buffer in
      for row in 0..<size {
        for column in (row + 1)..<max(size, row + 1) { buffer[row * size + column] = 0 }
      }
    }
    lower = Matrix(rows: size, columns: size, elements: elements)
  }

  /// `L⁻ᵀ B` for `B = [n, columns]`. O(n² · columns).
  public func solvedTransposed(_ right: Matrix<Double>) -> Matrix<Double> {
    var result = right
    let (size, columns) = (blasInt(lower.rows), blasInt(right.columns))
    result.elements.withUnsafeMutableBufferPointer { buffer in
      cblas_dtrsm(
        CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, size, columns, 1,
        lower.elements, size, buffer.baseAddress, columns)
    }
    return result
  }
}
