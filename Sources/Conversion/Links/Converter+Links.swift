import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Squeezing
import TensorNetworks

extension Converter {
  /// Factors linked matrices, and writes their operator.
  /// - Returns: the errors of each, measured on what is stored.
  func decompose<Scalar: CheckpointScalar>(
    _ matrices: [PlannedMatrix], _ link: SqueezePlan.Link, as type: Scalar.Type, of checkpoint: any DenseCheckpoint,
    with writer: MPOCheckpointWriter
  ) throws -> [OperatorErrors] {
    let chain = matrices[0].chain
    let source = LinkedSource(
      members: matrices.map {
        LinkedSource.Member(tensor: $0.tensor, expert: $0.expert, rows: $0.rows, columns: $0.columns, info: $0.info)
      }, stacking: link.stacking)
    guard let factorization = try source.factorization(in: weights(of: checkpoint), statistics, mask) else {
      throw ConversionError.mismatch(
        path: checkpoint.path, tensor: link.name,
        reason:
          "has elements whose squares vanish or overflow, so its matrices can't be linked; make a plan of this model")
    }
    let stored = try writer.write(
      factorization.lowRank(chain.bonds[0], link.stacking, as: type).gauged(chain.gauge), of: chain)
    let restored = stored.matrix(rows: chain.rows, columns: chain.columns)
    var start = 0
    return try source.members.map { member in
      let part: Matrix<Scalar>
      if link.stacking == .rows {
        part = Matrix(
          rows: member.rows, columns: member.columns,
          elements: Array(restored.elements[start * chain.columns..<(start + member.rows) * chain.columns]))
        start += member.rows
      } else {
        let columns = start..<start + member.columns
        part = Matrix(
          rows: member.rows, columns: member.columns,
          elements: (0..<member.rows).flatMap { row in
            restored.elements[row * chain.columns + columns.lowerBound..<row * chain.columns + columns.upperBound]
          })
        start += member.columns
      }
      return try weights(of: checkpoint).withMatrix(
        of: member.tensor, expert: member.expert, rows: member.rows, columns: member.columns
      ) { (view: MatrixView<Scalar>) in
        let metric = try LayerMetric(
          of: view, info: member.info, tensor: member.tensor, expert: member.expert, statistics, mask)
        return try errors(of: part, to: view, member.tensor, member.expert, metric, checkpoint)
      }
    }
  }
}
