import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

/// The measured errors of one operator.
struct OperatorErrors: Sendable {
  let relative: Double
  let squaredNorm: Double
  /// nil without a metric.
  let metricRelative: Double?
  let squaredMetricNorm: Double

  /// Writes the errors of a tensor that is made of operators.
  static func join(_ errors: [OperatorErrors], into blocks: inout BlockMatrix?) {
    guard errors.count > 1 else {
      blocks?.relativeError = errors.first?.relative
      blocks?.metricRelativeError = errors.first?.metricRelative
      return
    }
    blocks?.relativeError = joined(errors.map { ($0.relative, $0.squaredNorm) }).error
    blocks?.metricRelativeError = joined(errors.map { ($0.metricRelative, $0.squaredMetricNorm) }).error
  }

  /// The relative error, and the norm, of matrices together; the error is nil where that of one is not known.
  static func joined(_ errors: [(relative: Double?, squaredNorm: Double)]) -> (error: Double?, norm: Double) {
    let total = errors.reduce(0) { $0 + $1.squaredNorm }
    let squared = errors.reduce(0.0 as Double?) { sum, error in
      sum.flatMap { sum in error.relative.map { sum + $0 * $0 * error.squaredNorm } }
    }
    return (squared.map { total > 0 ? ($0 / total).squareRoot() : 0 }, total.squareRoot())
  }
}

/// `‖W−Ŵ‖_F / ‖W‖_F`; 0 for a zero matrix that is restored as such.
package func relativeError<Scalar>(of mpo: MPO<Scalar>, to matrix: MatrixView<Scalar>) -> Double {
  mpo.relativeError(to: matrix)
}

func relativeError<Scalar>(of restored: Matrix<Scalar>, to matrix: MatrixView<Scalar>) -> Double {
  let norm = matrix.norm
  if (1e-100...1e100).contains(norm) {
    return restored.elements.withUnsafeBufferPointer { Scalar.squaredDistance(matrix.elements, $0) }.squareRoot() / norm
  }
  // Squares would vanish or overflow.
  let squaredDistance = zip(matrix.elements, restored.elements).reduce(0.0) { sum, pair in
    let difference = pair.0 == pair.1 ? 0 : (Double(pair.0) - Double(pair.1)) / norm
    return sum + difference * difference
  }
  return squaredDistance.squareRoot()
}
