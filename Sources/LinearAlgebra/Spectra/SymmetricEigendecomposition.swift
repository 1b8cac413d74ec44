import COpenBLAS

/// Eigenvalues and eigenvectors of a symmetric matrix, largest eigenvalue first (LAPACK's divide and conquer).
public struct SymmetricEigendecomposition: Sendable {
  /// In descending order.
  public let values: [Double]
  /// `[n, n]`: row k is the unit eigenvector of `values[k]`, its entry of largest magnitude positive, so that the
  /// result does not hang on the solver's choice of signs.
  public let vectors: Matrix<Double>

  /// - Parameter matrix: `[n, n]`, symmetric.
  /// - Throws: `LinearAlgebraError.noConvergence`, which finite input does not cause in practice.
  public init(of matrix: consuming Matrix<Double>) throws {
    let size = matrix.rows
    var elements = matrix.takeElements()
    let ascending = try Self.solve(&elements, size: size, job: "V")
    values = ascending.reversed()
    // Column-major eigenvectors in columns are row-major eigenvectors in rows, in ascending order.
    vectors = Matrix(ascendingEigenvectors: elements, size: size)
  }

  /// Eigenvalues only, in descending order; about a quarter of the time, in single precision a sixth.
  /// - Throws: `LinearAlgebraError`.
  public static func values(
    of matrix: consuming Matrix<Double>, precision: GramPrecision = .double
  ) throws -> [Double] {
    if precision == .single { return try solveInSinglePrecision(matrix).reversed() }
    let size = matrix.rows
    var elements = matrix.takeElements()
    if size >= twoStageSize { return try solveInTwoStages(&elements, size: size).reversed() }
    return try solve(&elements, size: size, job: "N").reversed()
  }

  /// From here on the way over a band matrix, which is products of matrices, is the faster one to eigenvalues.
  private static var twoStageSize: Int { 1536 }

  private static func solve(_ elements: inout [Double], size: Int, job: Unicode.Scalar) throws -> [Double] {
    guard size > 0 else { return [] }
    var values = Array(repeating: 0.0, count: size)
    let n = blasInt(size)
    let status = lapack_dsyevd(.letter(job), .letter("L"), n, &elements, n, &values)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dsyevd", status: Int(status)) }
    return values
  }

  private static func solveInSinglePrecision(_ matrix: consuming Matrix<Double>) throws -> [Double] {
    let size = matrix.rows
    var rounded = matrix.converted(to: Float.self).takeElements()
    var values = Array(repeating: Float(0), count: size)
    let n = blasInt(size)
    // Of the symmetric matrix either triangle will do; this one is the faster.
    let status = lapack_ssyevd(.letter("N"), .letter("U"), n, &rounded, n, &values)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "ssyevd", status: Int(status)) }
    return values.map(Double.init)
  }

  private static func solveInTwoStages(_ elements: inout [Double], size: Int) throws -> [Double] {
    var values = Array(repeating: 0.0, count: size)
    let n = blasInt(size)
    let status = lapack_dsyevd_2stage(.letter("N"), .letter("L"), n, &elements, n, &values)
    guard status == 0 else { throw LinearAlgebraError.noConvergence(routine: "dsyevd_2stage", status: Int(status)) }
    return values
  }
}
