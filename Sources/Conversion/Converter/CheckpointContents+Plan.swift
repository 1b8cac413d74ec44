import Checkpoints
import MPOCheckpoints
import Squeezing

extension CheckpointContents {
  /// The same with the errors that a plan expects.
  func expecting(_ plan: SqueezePlan, inMetric: Bool) -> CheckpointContents {
    let layers = Dictionary(
      plan.layers.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    let tensors = tensors.map { record in
      guard let blocks = record.blocks else { return record }
      let own =
        layers[TensorName(record.name)].map { [$0] }
        ?? blocks.blocks.indices.compactMap { layers[TensorName("\(record.name).\($0)")] }
      let (error, _) = OperatorErrors.joined(
        own.map { ($0.bonds == nil ? 0 : $0.relativeErrorBound, $0.norm * $0.norm) })
      var result = record
      if inMetric {
        result.blocks?.metricRelativeError = error
      } else {
        result.blocks?.relativeError = error
      }
      return result
    }
    return CheckpointContents(tensors: tensors, operators: operators, cores: cores)
  }
}
