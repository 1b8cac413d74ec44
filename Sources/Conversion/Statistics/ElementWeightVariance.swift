import LinearAlgebra

/// How unequal the weights F of a matrix's elements are. TFWSVD (arXiv 2211.09718): where F varies much, plain SVD, which takes all
/// elements for equal, is far from the best factorisation.
public struct ElementWeightVariance: Sendable, Hashable {
  /// The variance of F over the square of its mean; 0 for weights that are all equal, or all zero.
  public let relative: Double
  /// The part of it that is within rows: what weights of rows, as in FWSVD, can't express.
  public let withinRows: Double

  init(of weights: Matrix<Float>) {
    let (rows, columns) = (weights.rows, weights.columns)
    let sums = (0..<rows).map { row in (0..<columns).reduce(0.0) { $0 + Double(weights[row, $1]) } }
    let count = Double(rows * columns)
    let mean = sums.reduce(0, +) / count
    guard mean > 0 else {
      (relative, withinRows) = (0, 0)
      return
    }
    var (all, within) = (0.0, 0.0)
    for row in 0..<rows {
      let own = sums[row] / (Double(columns) * mean)
      for column in 0..<columns {
        let value = Double(weights[row, column]) / mean
        all += (value - 1) * (value - 1)
        within += (value - own) * (value - own)
      }
    }
    (relative, withinRows) = (all / count, within / count)
  }
}

extension CalibrationStatistics {
  /// How unequal the weights of a matrix's elements are; nil for a matrix without such.
  /// - Throws: `ConversionError.mismatch` for weights that are negative, NaN or infinite.
  public func elementWeightVariance(of matrix: String) throws -> ElementWeightVariance? {
    guard let entry = entries.first(where: { $0.matrix == matrix && $0.kind == .elementWeights }),
      entry.shape.count == 2
    else { return nil }
    return try elementWeights(of: matrix, rows: entry.shape[0], columns: entry.shape[1]).map(ElementWeightVariance.init)
  }
}
