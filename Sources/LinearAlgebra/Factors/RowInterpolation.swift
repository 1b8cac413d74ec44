import COpenBLAS
import Glibc

/// Rows of a matrix from which all of its rows follow: `A = F · A[pivots]`, where the pivot rows of `F` are the identity and
/// no element of `F` exceeds `bound` in magnitude (a row interpolative decomposition).
///
/// An LU decomposition with partial pivoting chooses the first pivots. Then a pivot gives way to the row that has the largest
/// element of `F`, until none exceeds 1.1. Each exchange multiplies the volume `|det A[pivots]|` by more than that, and
/// Hadamard's inequality limits the volume, so the number of exchanges is limited.
///
/// A matrix of less than full column rank (to 1e-6) is replaced by the orthonormal columns of its QR decomposition to choose
/// the pivots, so that `F` is as bounded for it.
public struct RowInterpolation: Sendable {
  /// No element of `coefficients` is larger in magnitude.
  public static let bound = 2.0
  /// The magnitude above which pivots are exchanged: the smaller it is, the less rounding the coefficients costs.
  static let exchangeBound = 1.1

  /// `F = [m, n]`.
  public let coefficients: Matrix<Double>
  /// n rows, ascending; the c-th has its 1 in column c.
  public let pivots: [Int]

  /// - Parameter matrix: `[m, n]`, `m ≥ n`. One that is such an `F` already is kept as it is.
  /// - Throws: `LinearAlgebraError.noConvergence` when LAPACK refuses, which finite input does not cause.
  ///
  /// O(m · n²), and O((m − n) · n) for each exchange.
  public init(of matrix: Matrix<Double>) throws {
    precondition(matrix.rows >= matrix.columns)
    if let pivots = Self.identityRows(of: matrix) {
      (coefficients, self.pivots) = (matrix, pivots)
      return
    }
    var search: PivotSearch
    if let found = try PivotSearch(matrix) {
      search = found
    } else if let found = try PivotSearch(QRDecomposition(of: matrix).q) {
      search = found
    } else {
      throw LinearAlgebraError.notFinite
    }
    search.exchange()
    (coefficients, pivots) = search.result()
  }

  /// The pivots of a matrix that is an `F` already.
  private static func identityRows(of matrix: Matrix<Double>) -> [Int]? {
    let columns = matrix.columns
    var pivots: [Int] = []
    for row in 0..<matrix.rows {
      var isPivot = pivots.count < columns
      for (column, value) in matrix.elements[(row * columns)..<((row + 1) * columns)].enumerated() {
        guard abs(value) <= bound else { return nil }
        if isPivot, value != (column == pivots.count ? 1 : 0) { isPivot = false }
      }
      if isPivot { pivots.append(row) }
      // Most matrices are told by their first rows: all pivots must still find a row.
      if matrix.rows - row - 1 < columns - pivots.count { return nil }
    }
    return pivots
  }
}

/// Pivots, and the coefficients of the other rows.
private struct PivotSearch {
  private let rows: Int
  private let columns: Int
  /// The rows: the pivots first, in the order of the columns of `rest`, then the others in the order of its rows.
  private var order: [Int]
  /// `[m − n, n]`.
  private var rest: [Double]
  /// How many exchanges the volume allows.
  private let limit: Int

  /// nil when the matrix is not of full column rank.
  init?(_ matrix: Matrix<Double>) throws {
    let (rows, columns) = (matrix.rows, matrix.columns)
    (self.rows, self.columns) = (rows, columns)
    var factors = matrix.transposed().takeElements()
    let largestVolume = factors.withUnsafeBufferPointer { factors in
      (0..<columns).reduce(0.0) { $0 + log2(cblas_dnrm2(blasInt(rows), factors.baseAddress! + $1 * rows, 1)) }
    }
    var exchanges = Array(repeating: Int32(0), count: columns)
    let status = lapack_dgetrf(blasInt(rows), blasInt(columns), &factors, blasInt(rows), &exchanges)
    guard status >= 0 else { throw LinearAlgebraError.noConvergence(routine: "dgetrf", status: Int(status)) }
    let diagonal = (0..<columns).map { abs(factors[$0 * (rows + 1)]) }
    guard let smallest = diagonal.min(), let largest = diagonal.max(), smallest > 1e-6 * largest, largest.isFinite
    else { return nil }

    order = Array(0..<rows)
    for (row, other) in exchanges.enumerated() { order.swapAt(row, Int(other) - 1) }
    // Row-major `L_2`, then `L_2 L_1⁻¹`; `L_1` column-major is `L_1ᵀ` row-major.
    let count = rows - columns
    rest = factors.withUnsafeBufferPointer { factors in
      Array(unsafeUninitializedCapacity: count * columns) { target, initialized in
        for row in 0..<count {
          for column in 0..<columns {
            target.initializeElement(at: row * columns + column, to: factors[column * rows + columns + row])
          }
        }
        initialized = count * columns
        guard count > 0, let target = target.baseAddress else { return }
        cblas_dtrsm(
          CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasUnit, blasInt(count), blasInt(columns), 1,
          factors.baseAddress, blasInt(rows), target, blasInt(columns))
      }
    }
    let volume = diagonal.reduce(0) { $0 + log2($1) }
    limit = Int(max(0, largestVolume - volume) / log2(RowInterpolation.exchangeBound)) + columns
  }

  /// Exchanges pivots for other rows until no coefficient exceeds the bound.
  mutating func exchange() {
    let count = rows - columns
    guard count > 0 else { return }
    rest.withUnsafeMutableBufferPointer { rest in
      guard let base = rest.baseAddress else { return }
      var column = Array(repeating: 0.0, count: count)
      for _ in 0..<limit {
        let place = Int(cblas_idamax(blasInt(rest.count), base, 1))
        let largest = rest[place]
        guard abs(largest) > RowInterpolation.exchangeBound else { return }
        let (i, j) = (place / columns, place % columns)
        for row in 0..<count { column[row] = rest[row * columns + j] }
        let row = Array(rest[(i * columns)..<((i + 1) * columns)])
        cblas_dger(
          CblasRowMajor, blasInt(count), blasInt(columns), -1 / largest, column, 1, row, 1, base, blasInt(columns))
        for other in 0..<count { rest[other * columns + j] = column[other] / largest }
        for other in 0..<columns { rest[i * columns + other] = -row[other] / largest }
        rest[place] = 1 / largest
        order.swapAt(j, columns + i)
      }
    }
  }

  func result() -> (coefficients: Matrix<Double>, pivots: [Int]) {
    let columnOrder = (0..<columns).sorted { order[$0] < order[$1] }
    var elements = Array(repeating: 0.0, count: rows * columns)
    elements.withUnsafeMutableBufferPointer { target in
      for (column, pivot) in columnOrder.enumerated() { target[order[pivot] * columns + column] = 1 }
      for row in 0..<(rows - columns) {
        let place = order[columns + row] * columns
        for (column, pivot) in columnOrder.enumerated() { target[place + column] = rest[row * columns + pivot] }
      }
    }
    return (Matrix(rows: rows, columns: columns, elements: elements), columnOrder.map { order[$0] })
  }
}
