extension Matrix {
  /// The singular values of a row-major `[rows, columns]` buffer, largest first, `min(rows, columns)` of them, by way
  /// of the Gram matrix of the shorter side: values below about 1e-8 of the largest are rounding noise.
  public static func singularValues(
    of elements: UnsafeBufferPointer<Scalar>, rows: Int, columns: Int
  ) throws -> [Double] {
    guard let base = elements.baseAddress, rows > 0, columns > 0 else { return [] }
    var gram = GramMatrix(size: min(rows, columns))
    if rows <= columns {
      gram.addColumns(base, columns: columns)
    } else {
      gram.addRows(base, rows: rows)
    }
    return try SymmetricEigendecomposition.values(of: gram.matrix()).map { max(0, $0).squareRoot() }
  }
}
