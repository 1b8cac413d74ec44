import Checkpoints
import LinearAlgebra
import Recipes
import TensorNetworks

/// How errors count of a matrix of which a mask keeps some elements.
///
/// LPAF (arXiv 2306.14152) weights one side by the count of what is kept, as FWSVD does by the Fisher information. Here both
/// sides are: the product of both counts is the matrix of rank one that has the mask's sums of rows and of columns.
struct MaskMetric {
  /// Rows and columns by how many of their elements are kept, so that the squared norm of the matrix is the number of all that
  /// are kept: matrices that keep more count for more in a plan.
  let sides: Metric
  /// Elements by whether they are kept; nil where `sides` is all.
  let elements: Matrix<Float>?

  /// - Parameters:
  ///   - view: the masked matrix.
  ///   - kept: 1 or 0 for each of its elements.
  init<Scalar>(of view: MatrixView<Scalar>, kept: [UInt8], weights: MaskRule.Weights) {
    let (rows, columns) = (view.rows, view.columns)
    var rowCounts = [Double](repeating: 0, count: rows)
    var columnCounts = [Double](repeating: 0, count: columns)
    for row in 0..<rows {
      for column in 0..<columns where kept[row * columns + column] != 0 {
        rowCounts[row] += 1
        columnCounts[column] += 1
      }
    }
    let total = rowCounts.reduce(0, +)
    // Of what has nothing left the rest of the matrix decides.
    rowCounts = rowCounts.map { max(1, $0) }
    columnCounts = columnCounts.map { max(1, $0) }
    var energy = 0.0
    for row in 0..<rows {
      let sum = (0..<columns).reduce(0.0) { sum, column in
        let value = Double(view.elements[row * columns + column])
        return sum + columnCounts[column] * value * value
      }
      energy += rowCounts[row] * sum
    }
    let scale = energy.isNormal && energy.isFinite ? total / energy : 1
    sides = .sides(rows: .diagonal(rowCounts.map { $0 * scale }), columns: .diagonal(columnCounts))
    elements =
      weights == .elements ? Matrix(rows: rows, columns: columns, elements: kept.map { Float($0) }) : nil
  }
}

extension LayerMetric {
  /// The metric of a matrix: that of statistics, or else of a mask; nil where neither speaks of it, and
  /// for a masked matrix whose squares vanish or overflow.
  /// - Parameters:
  ///   - matrix: the masked one.
  ///   - info: the matrix as if it were a tensor by itself.
  ///   - tensor: that it is in.
  init?<Scalar>(
    of view: MatrixView<Scalar>, info: TensorInfo, tensor: TensorInfo, expert: Int?,
    _ statistics: CalibrationStatistics?, _ mask: NetworkMask?
  ) throws {
    if let statistics {
      try self.init(of: info, rows: view.rows, columns: view.columns, statistics)
    } else if let mask {
      // Squares would vanish or overflow.
      guard view.norm == 0 || (1e-100...1e100).contains(view.norm) else { return nil }
      let kept = try mask.kept(of: tensor, expert: expert, view)
      try self.init(of: info, MaskMetric(of: view, kept: kept, weights: mask.weights))
    } else {
      return nil
    }
  }
}
