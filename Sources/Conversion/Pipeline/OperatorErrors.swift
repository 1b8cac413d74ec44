import MPOCheckpoints

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
