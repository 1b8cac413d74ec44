import COpenBLAS

/// `A = Q R` with orthonormal columns of `Q` and an upper triangular (for a wide `A`: trapezoidal) `R`, by Householder
/// reflections: exact to rounding whatever the rank of `A`.
public struct QRDecomposition: Sendable {
  /// `[m, k]`, `k = min(m, n)`.
  public let q: Matrix<Double>
  /// `[k, n]`.
  public let r: Matrix<Double>

  /// - Parameter matrix: `[m, n]`.
  /// - Throws: `LinearAlgebraError.noConvergence` when LAPACK refuses, which finite input does not cause.
  ///
  /// O(m · n · min(m, n)).
  public init(of matrix: consuming Matrix<Double>) throws {
    let (rows, columns) = (matrix.rows, matrix.columns)
    var reflections = try Reflections(matrix)
    r = reflections.triangle()
    q = try reflections.orthonormalColumns(rows: rows, columns: columns)
  }
}

/// What LAPACK leaves of a matrix: the triangle, and the reflections that make it.
///
/// A row-major `A` is a column-major `Aᵀ`, whose LQ decomposition is the transposed QR decomposition of `A`.
private struct Reflections {
  private var elements: [Double]
  private var scales: [Double]
  private let rows: Int
  private let columns: Int

  init(_ matrix: consuming Matrix<Double>) throws {
    (rows, columns) = (matrix.rows, matrix.columns)
    elements = matrix.elements
    scales = Array(repeating: 0, count: min(matrix.rows, matrix.columns))
    let status = lapack_dgelqf(blasInt(columns), blasInt(rows), &elements, blasInt(columns), &scales)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dgelqf", status: Int(status)) }
  }

  func triangle() -> Matrix<Double> {
    Matrix(rows: scales.count, columns: columns) { target in
      for row in 0..<scales.count {
        for column in 0..<columns {
          target.initializeElement(at: row * columns + column, to: column < row ? 0 : elements[row * columns + column])
        }
      }
    }
  }

  mutating func orthonormalColumns(rows: Int, columns: Int) throws -> Matrix<Double> {
    let kept = scales.count
    let status = lapack_dorglq(blasInt(kept), blasInt(rows), blasInt(kept), &elements, blasInt(columns), scales)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dorglq", status: Int(status)) }
    if kept == columns { return Matrix(rows: rows, columns: kept, elements: elements) }
    return Matrix(rows: rows, columns: kept) { target in
      for row in 0..<rows {
        for column in 0..<kept {
          target.initializeElement(at: row * kept + column, to: elements[row * columns + column])
        }
      }
    }
  }
}
