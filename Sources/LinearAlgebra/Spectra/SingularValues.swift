extension Matrix {
  /// The singular values of a row-major `[rows, columns]` buffer, largest first, `min(rows, columns)` of them, by way
  /// of the Gram matrix of the shorter side: values below about 1e-8 of the largest are rounding noise, and those of ranks
  /// whose factors `A·B` would have more elements than the matrix may be known to 5e-4 of the largest only.
  /// - Throws: `LinearAlgebraError`.
  public static func singularValues(
    of elements: UnsafeBufferPointer<Scalar>, rows: Int, columns: Int
  ) throws -> [Double] {
    if let scale = Scalar.unitScale(of: elements) {
      return try elements.map { $0 * scale }.withUnsafeBufferPointer {
        try singularValues(of: $0, rows: rows, columns: columns).map { $0 / Double(scale) }
      }
    }
    guard let base = elements.baseAddress, rows > 0, columns > 0 else { return [] }
    // The largest rank whose factors have fewer elements.
    let rank = rows * columns / (rows + columns)
    let eigenvalues = try GramPrecision.sufficient(for: Scalar.self) { precision -> [Double]? in
      var gram = GramMatrix(size: min(rows, columns), precision: precision)
      if rows <= columns {
        gram.addColumns(base, columns: columns)
      } else {
        gram.addRows(base, rows: rows)
      }
      guard gram.isHeld else { return nil }
      let values = try SymmetricEigendecomposition.values(of: gram.matrix(), precision: precision)
      let tail = values[rank...]
      return precision.resolves(tail.reduce(0, +), of: tail.count, largest: values[0]) ? values : nil
    }
    return eigenvalues.map { max(0, $0).squareRoot() }
  }
}
