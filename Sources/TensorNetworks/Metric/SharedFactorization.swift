import LinearAlgebra

/// Matrices `[I_m, J]` that read the same J inputs, to be factored as `W_m ≈ A_m B` with one B, `[r, J]`, for all of them.
///
/// With metrics `G_m`, `S_m` it is the truncated singular value decomposition of the whitened matrices one below the other: the
/// metric of the stack is block-diagonal, each block that of the matrix's own outputs, and its inputs' side is the same `S` for
/// all: `S_m` where they are equal, else the mean of the `S_m`, each over its trace, whose weight the block takes.
public struct SharedFactorization: Sendable {
  /// One of the matrices, its metric with its ridges.
  public struct Member: Sendable {
    /// `[I, J]`.
    public let matrix: Matrix<Double>
    /// Root of `G`.
    public let rows: MetricRoot
    /// `S`.
    public let columns: Metric.Side
    /// What its squared error counts.
    public let weight: Double

    /// A matrix `[I, J]` with its metric; `rows` is the root of `G`, `columns` is `S`.
    public init(matrix: Matrix<Double>, rows: MetricRoot, columns: Metric.Side, weight: Double) {
      (self.matrix, self.rows, self.columns, self.weight) = (matrix, rows, columns, weight)
    }
  }

  private let members: [Member]
  /// Root `L` of the common `S`.
  private let root: MetricRoot
  /// What the whitened matrix of each member is multiplied by.
  private let scales: [Double]
  private let hasOneMetric: Bool
  /// `V`, `[J, J]`: right singular vectors of the whitened stack in the rows, largest first.
  private let vectors: Matrix<Double>

  /// O(ΣI·J² + ΣI²·J + J³).
  /// - Precondition: the matrices have J columns each.
  /// - Throws: `LinearAlgebraError`.
  public init(_ members: [Member]) throws {
    self.members = members
    let columns = members[0].matrix.columns
    hasOneMetric = members.allSatisfy { $0.columns == members[0].columns }
    if hasOneMetric {
      root = try MetricRoot(of: members[0].columns, ridge: 0)
      scales = members.map { $0.weight.squareRoot() }
    } else {
      let means = members.map { max($0.columns.meanDiagonal, .leastNormalMagnitude) }
      var sum = [Double](repeating: 0, count: columns * columns)
      for (member, mean) in zip(members, means) {
        for (index, value) in member.columns.matrix(size: columns).elements.enumerated() {
          sum[index] += value / (mean * Double(members.count))
        }
      }
      root = try MetricRoot(of: .full(Matrix(rows: columns, columns: columns, elements: sum)), ridge: 0)
      scales = zip(members, means).map { ($0.weight * $1).squareRoot() }
    }
    var gram = GramMatrix(size: columns)
    for (member, scale) in zip(members, scales) where scale > 0 {
      let whitened = Self.whitened(member, root)
      let scaled = whitened.scaled(rowsBy: Array(repeating: scale, count: whitened.rows))
      scaled.elements.withUnsafeBufferPointer {
        if let start = $0.baseAddress { gram.addRows(start, rows: scaled.rows) }
      }
    }
    vectors = try SymmetricEigendecomposition(of: gram.matrix()).vectors
  }

  private static func whitened(_ member: Member, _ root: MetricRoot) -> Matrix<Double> {
    member.rows.transposedTimes(root.timesFromRight(member.matrix))
  }

  /// Rows of all members.
  private var rowCount: Int { members.reduce(0) { $0 + $1.matrix.rows } }

  /// For each member the squared errors of all ranks, from 0, over the squared norm, both in its own metric; 0 for a matrix of
  /// zeros.
  public func squaredErrors() -> [[Double]] {
    let size = vectors.rows
    let ranks = min(rowCount, size)
    // In the coordinates of `V`, the metric of a member's inputs.
    let unwhitened = hasOneMetric ? nil : root.inverseTransposedTimes(vectors.transposed())
    return members.map { member in
      let image = Self.whitened(member, root) * vectors.transposed()
      var errors = [Double](repeating: 0, count: size + 1)
      if let unwhitened {
        let own = unwhitened.transposed() * member.columns.times(unwhitened)
        let product = image.transposed() * image
        let weighted = product.multipliedElementwise(by: own).elements
        for rank in (0..<size).reversed() {
          var growth = weighted[rank * size + rank]
          for other in rank + 1..<size { growth += 2 * weighted[rank * size + other] }
          errors[rank] = max(0, errors[rank + 1] + growth)
        }
      } else {
        var energies = [Double](repeating: 0, count: size)
        for row in 0..<image.rows {
          for column in 0..<size { energies[column] += image[row, column] * image[row, column] }
        }
        for rank in (0..<size).reversed() { errors[rank] = errors[rank + 1] + energies[rank] }
      }
      let total = errors[0]
      return errors[0...ranks].map { total > 0 ? $0 / total : 0 }
    }
  }

  /// The operator of all members, one below the other, as an MPO of two sites; its second core is an isometry.
  /// - Parameters:
  ///   - rank: lowered to what the sides allow.
  ///   - type: the precision of the cores.
  /// - Throws: `LinearAlgebraError`.
  public func lowRank<Scalar>(_ rank: Int, as type: Scalar.Type = Scalar.self) throws -> MPO<Scalar> {
    let shape = MPOShape.lowRank(rows: rowCount, columns: vectors.columns)
    let bond = shape.limitedBonds([rank])[0]
    let leading = vectors.firstRows(bond).transposed()
    let qr = try QRDecomposition(of: root.inverseTransposedTimes(leading))
    let turned = leading * qr.r.transposed()
    let left = members.flatMap { (root.timesFromRight($0.matrix) * turned).elements }
    let factors = [Matrix(rows: rowCount, columns: bond, elements: left), qr.q.transposed()]
    return MPO(
      shape: shape,
      cores: zip(shape.coreShapes(bonds: [bond]), factors).map {
        MPOCore(shape: $0, elements: $1.converted(to: Scalar.self).elements)
      })
  }
}

extension Metric.Side {
  /// `[size, size]`.
  fileprivate func matrix(size: Int) -> Matrix<Double> {
    switch self {
    case .identity: .identity(size)
    case .diagonal(let values): Matrix.identity(size).scaled(rowsBy: values)
    case .full(let matrix): matrix
    }
  }

  /// The product with `M`.
  fileprivate func times(_ matrix: Matrix<Double>) -> Matrix<Double> {
    switch self {
    case .identity: matrix
    case .diagonal(let values): matrix.scaled(rowsBy: values)
    case .full(let side): side * matrix
    }
  }
}

extension MPO {
  /// The operator of the transposed matrix, `Wᵀ`, of two sites of low rank.
  /// - Precondition: the shape is `.lowRank`.
  public func transposedLowRank() -> MPO {
    let (left, right) = (cores[0], cores[1])
    let shape = MPOShape.lowRank(rows: right.columnFactor, columns: left.rowFactor)
    let factors = [right.rightUnfolding.transposed(), left.leftUnfolding.transposed()]
    return MPO(
      shape: shape,
      cores: zip(shape.coreShapes(bonds: bonds), factors).map { MPOCore(shape: $0, elements: $1.elements) })
  }
}
