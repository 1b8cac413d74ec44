import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Squeezing
import TensorNetworks

/// Linked matrices of a checkpoint, with what is needed to factor them together.
struct LinkedSource: Sendable {
  struct Member: Sendable {
    let tensor: TensorInfo
    let expert: Int?
    let rows: Int
    let columns: Int
    /// The matrix as if it were a tensor by itself.
    let info: TensorInfo
  }

  let members: [Member]
  let stacking: LinkProfile.Stacking

  /// The common factorisation; nil for matrices whose squares vanish or overflow.
  ///
  /// Without statistics each matrix counts by its number of elements, or of those that a mask keeps, whatever its norm is, so
  /// that none is starved.
  /// Memory: the matrices and their metrics, in double precision.
  /// - Throws: `ConversionError.mismatch` for matrices only some of which have statistics, or weights of elements; the errors
  ///   of reading and of linear algebra.
  /// - Parameter checkpoint: masked, where there is a mask.
  func factorization(
    in checkpoint: any DenseCheckpoint, _ statistics: CalibrationStatistics?, _ mask: NetworkMask? = nil
  ) throws -> SharedFactorization? {
    let metrics = try members.map { member in
      try statistics?.metric(of: member.info, rows: member.rows, columns: member.columns)
    }
    let first = metrics.firstIndex { $0 != nil }
    for (member, metric) in zip(members, metrics) {
      if case .elements? = metric {
        throw mismatch(member, "has weights of elements, with which it can't be linked", statistics)
      }
      if metric == nil, let first {
        throw mismatch(
          member, "has no statistics, but '\(escaped(members[first].info.name))', with which it is linked, has some",
          statistics)
      }
    }
    var factors: [SharedFactorization.Member] = []
    for (member, metric) in zip(members, metrics) {
      let (matrix, masked) = try checkpoint.withMatrix(
        of: member.tensor, expert: member.expert, rows: member.rows, columns: member.columns
      ) { (view: MatrixView<Double>) in
        (
          Matrix(rows: view.rows, columns: view.columns, elements: Array(view.elements)),
          try statistics == nil
            ? mask.map {
              MaskMetric(
                of: view, kept: try $0.kept(of: member.tensor, expert: member.expert, view), weights: .sides
              ).sides
            } : nil
        )
      }
      let norm = matrix.withView { $0.norm }
      guard norm == 0 || (1e-100...1e100).contains(norm) else { return nil }
      var (own, shared) = (Metric.Side.identity, Metric.Side.identity)
      if case .sides(let rows, let columns)? = metric, let statistics {
        let ridges = statistics.ridges(of: member.info, for: .lowRank)
        let sides = (rows.regularized(ridges.rows), columns.regularized(ridges.columns))
        (own, shared) = stacking == .rows ? sides : (sides.1, sides.0)
      } else if case .sides(let rows, let columns)? = masked {
        (own, shared) = stacking == .rows ? (rows, columns) : (columns, rows)
      }
      let isWeighted = metric == nil && masked == nil && norm > 0
      factors.append(
        SharedFactorization.Member(
          matrix: stacking == .rows ? matrix : matrix.transposed(), rows: try MetricRoot(of: own, ridge: 0),
          columns: shared, weight: isWeighted ? Double(member.rows * member.columns) / (norm * norm) : 1))
    }
    return try SharedFactorization(factors)
  }

  private func mismatch(_ member: Member, _ reason: String, _ statistics: CalibrationStatistics?) -> ConversionError {
    .mismatch(path: statistics?.path ?? "", tensor: member.info.name, reason: reason + "; leave it out of the link")
  }
}

extension SharedFactorization {
  /// The operator of the stack.
  func lowRank<Scalar>(_ rank: Int, _ stacking: LinkProfile.Stacking, as type: Scalar.Type) throws -> MPO<Scalar> {
    let chain = try lowRank(rank, as: type)
    return stacking == .rows ? chain : chain.transposedLowRank()
  }
}

extension SourceNetwork {
  /// What the plan needs to know of a link; nil for matrices that can't be factored together.
  func profile(of link: MatrixLink, _ statistics: CalibrationStatistics?) throws -> LinkProfile? {
    let source = LinkedSource(
      members: link.members.map { index in
        let matrix = matrices[index]
        return LinkedSource.Member(
          tensor: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns, info: matrix.info)
      }, stacking: link.stacking)
    return try source.factorization(in: weights, statistics, mask).map {
      LinkProfile(
        name: link.name, members: link.members.map { matrices[$0].name }, stacking: link.stacking,
        squaredErrors: $0.squaredErrors())
    }
  }
}
