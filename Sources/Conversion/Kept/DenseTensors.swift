import Checkpoints
import MPOCheckpoints
import Recipes

/// Tensors that are stored as they are for one reason.
public struct DenseTensors: Sendable, Hashable {
  /// Why they are.
  public let reason: DenseReason
  /// How many tensors.
  public let tensors: Int
  /// The numbers of all of them.
  public let elements: Int
}

extension TensorSelection {
  /// What of a converted checkpoint is dense, and why, the most numbers first; tied tensors are left out.
  ///
  /// - Parameter configuration: of the source, whose `config.json` the checkpoint has.
  public func denseTensors(in contents: CheckpointContents, _ configuration: ModelConfiguration)
    -> [DenseTensors]
  {
    let kept = KeptTensors(contents.tensors.map(\.info), configuration, include: include)
    var found: [DenseReason: (tensors: Int, elements: Int)] = [:]
    for record in contents.tensors where record.isDense {
      let reason = denseReason(of: record.info, kept.reason(for: record.info), configuration)
      let before = found[reason] ?? (0, 0)
      found[reason] = (before.tensors + 1, before.elements + record.info.elementCount)
    }
    return DenseReason.allCases.compactMap { reason in
      found[reason].map { DenseTensors(reason: reason, tensors: $0.tensors, elements: $0.elements) }
    }.sorted { $0.elements > $1.elements }
  }

  private func denseReason(
    of tensor: TensorInfo, _ kept: KeptTensors.Reason?, _ configuration: ModelConfiguration
  ) -> DenseReason {
    switch kept {
    case .trainingState: return .trainingState
    case .quantization: return .quantization
    case .buffer: return .buffer
    case nil: break
    }
    guard tensor.dtype.isDecomposable else { return .notFloatingPoint }
    guard let sides = sides(of: tensor, configuration) else {
      return tensor.shape.count >= 3 && tensor.elementCount > 0 ? .kernel : .vector
    }
    if selects(tensor, rows: sides.rows, columns: sides.columns) { return .better }
    if exclude.contains(where: { matches($0, tensor.name) }) { return .excluded }
    return include.isEmpty ? .smallSide : .notIncluded
  }
}
