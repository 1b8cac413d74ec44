import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

extension Converter {
  /// The checkpoint whose matrices are decomposed: the masked one, where there is a mask.
  func weights(of checkpoint: any DenseCheckpoint) -> any DenseCheckpoint {
    mask?.applied(to: checkpoint) ?? checkpoint
  }

  /// The errors of what is stored for a matrix: relative to the source, which is not masked, and to what was decomposed in the
  /// metric, whose norm is computed once for both figures.
  /// - Parameter view: the matrix that was decomposed.
  func errors<Scalar: CheckpointScalar>(
    of stored: Matrix<Scalar>, to view: MatrixView<Scalar>, _ tensor: TensorInfo, _ expert: Int?,
    _ metric: LayerMetric?,
    _ checkpoint: any DenseCheckpoint
  ) throws -> OperatorErrors {
    let own = try plainErrors(of: stored, to: view, tensor, expert, checkpoint)
    let metricNorm = metric?.squaredNorm(of: view) ?? 1
    return OperatorErrors(
      relative: own.relative, squaredNorm: own.squaredNorm,
      metricRelative: metric?.relativeError(of: stored, to: view, squaredNorm: metricNorm),
      squaredMetricNorm: metricNorm)
  }

  /// The relative error of what is stored to the source, which is not masked, and the squared norm of that.
  /// - Parameter view: the matrix that was decomposed.
  func plainErrors<Scalar: CheckpointScalar>(
    of stored: Matrix<Scalar>, to view: MatrixView<Scalar>, _ tensor: TensorInfo, _ expert: Int?,
    _ checkpoint: any DenseCheckpoint
  ) throws -> (relative: Double, squaredNorm: Double) {
    if mask?.file == nil { return (relativeError(of: stored, to: view), view.squaredNorm) }
    return try checkpoint.withMatrix(of: tensor, expert: expert, rows: view.rows, columns: view.columns) {
      (source: MatrixView<Scalar>) in (relativeError(of: stored, to: source), source.squaredNorm)
    }
  }
}
