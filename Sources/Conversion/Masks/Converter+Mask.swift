import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

extension Converter {
  /// The checkpoint whose matrices are decomposed: the masked one, where there is a mask.
  func weights(of checkpoint: any DenseCheckpoint) -> any DenseCheckpoint {
    mask?.applied(to: checkpoint) ?? checkpoint
  }

  /// The relative error of what is stored to the source, which is not masked, and the squared norm of that.
  /// - Parameter view: the matrix that was decomposed.
  func errors<Scalar: CheckpointScalar>(
    of stored: Matrix<Scalar>, to view: MatrixView<Scalar>, _ tensor: TensorInfo, _ expert: Int?,
    _ checkpoint: any DenseCheckpoint
  ) throws -> (relative: Double, squaredNorm: Double) {
    if mask?.file == nil { return (relativeError(of: stored, to: view), view.squaredNorm) }
    return try checkpoint.withMatrix(of: tensor, expert: expert, rows: view.rows, columns: view.columns) {
      (source: MatrixView<Scalar>) in (relativeError(of: stored, to: source), source.squaredNorm)
    }
  }
}
