import COpenBLAS

/// A symmetric matrix `A = Q T Qᵀ` reduced to a tridiagonal `T`, from which its eigenvalues follow in O(n²) and its leading
/// eigenvectors without a second reduction (Golub & Van Loan, *Matrix Computations*, 8.3).
public struct TridiagonalReduction: Sendable {
  /// `[n, n]`: `T`, and the Householder vectors of `Q` as LAPACK's `dsytrd` leaves them.
  public let reflections: LowerTriangle
  /// The scales of the Householder vectors.
  public let scales: [Double]

  /// What was kept of a reduction.
  public init(reflections: LowerTriangle, scales: [Double]) {
    (self.reflections, self.scales) = (reflections, scales)
  }

  /// O(n³).
  /// - Parameter matrix: `[n, n]`, symmetric.
  /// - Throws: `LinearAlgebraError.noConvergence` for elements that are not finite.
  public init(of matrix: consuming Matrix<Double>) throws {
    let size = matrix.rows
    var elements = matrix.takeElements()
    var scales = Array(repeating: 0.0, count: max(1, size - 1))
    var (diagonal, beside) = (Array(repeating: 0.0, count: max(1, size)), scales)
    // By columns the lower triangle is the upper one.
    let status = lapack_dsytrd(
      .letter("U"), blasInt(size), &elements, blasInt(max(1, size)), &diagonal, &beside, &scales)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dsytrd", status: Int(status)) }
    self.init(reflections: LowerTriangle(of: elements, size: size), scales: scales)
  }

  /// In descending order. O(n²).
  /// - Throws: `LinearAlgebraError.noConvergence`, which finite input does not cause in practice.
  public func eigenvalues() throws -> [Double] {
    var (diagonal, beside) = tridiagonal
    let status = lapack_dsterf(blasInt(diagonal.count), &diagonal, &beside)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dsterf", status: Int(status)) }
    return diagonal.reversed()
  }

  /// `[count, n]`: unit eigenvectors in the rows, that of the largest eigenvalue first, the entry of largest magnitude of each
  /// positive. O(n³), the part that grows with `count` 2 n² · count.
  /// - Throws: `LinearAlgebraError.noConvergence`, which finite input does not cause in practice.
  public func leadingEigenvectors(_ count: Int) throws -> Matrix<Double> {
    var (diagonal, beside) = tridiagonal
    let size = diagonal.count
    guard size > 0, count > 0 else { return Matrix(rows: 0, columns: size, elements: []) }
    let n = blasInt(size)
    var vectors = Array(repeating: 0.0, count: size * size)
    var status = lapack_dstedc(.letter("I"), n, &diagonal, &beside, &vectors, n)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dstedc", status: Int(status)) }
    // Column-major eigenvectors in columns are row-major eigenvectors in rows, in ascending order.
    vectors.removeFirst((size - count) * size)
    status = lapack_dormtr(
      .letter("L"), .letter("U"), .letter("N"), n, blasInt(count), reflections.matrix().elements, n, scales, &vectors, n
    )
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dormtr", status: Int(status)) }
    return Matrix(ascendingEigenvectors: vectors, size: size)
  }

  private var tridiagonal: (diagonal: [Double], beside: [Double]) {
    let size = reflections.size
    return (
      (0..<size).map { reflections[$0, $0] }, (1..<max(1, size)).map { reflections[$0, $0 - 1] } + [0]
    )
  }
}

extension Matrix {
  /// Eigenvectors `[count, size]` in the rows, in descending order of their eigenvalues and with the entry of largest magnitude
  /// positive, so that they do not hang on the solver's choice of signs.
  init(ascendingEigenvectors elements: [Scalar], size: Int) {
    let count = size == 0 ? 0 : elements.count / size
    self.init(rows: count, columns: size) { target in
      for row in 0..<count {
        let source = (count - 1 - row) * size
        var largest: Scalar = 0
        for column in 0..<size where abs(elements[source + column]) > abs(largest) {
          largest = elements[source + column]
        }
        let sign: Scalar = largest < 0 ? -1 : 1
        for column in 0..<size {
          target.initializeElement(at: row * size + column, to: sign * elements[source + column])
        }
      }
    }
  }
}
