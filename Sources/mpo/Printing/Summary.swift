import Checkpoints
import Conversion
import Files
import MPOCheckpoints

/// What a conversion did, in a few lines.
struct Summary {
  private let manifest: Manifest

  init(_ manifest: Manifest) { self.manifest = manifest }

  /// Of the source, of what is stored, and of that before it was packed.
  static func bytes(of totals: Manifest.Totals) -> String {
    let text = "\(mpo.bytes(totals.bytesBefore)) -> \(mpo.bytes(totals.bytesStored))"
    return text + (totals.bytesUnpacked.map { ", packed from \(mpo.bytes($0))" } ?? "")
  }

  func text(of path: String) -> String {
    let totals = manifest.totals
    let tensors = manifest.contents.tensors
    let matrices = tensors.compactMap(\.blocks)
    let dense = tensors.count(where: \.isDense)
    let selected = manifest.conversion.map {
      $0.selection.parameters(in: manifest.contents, ModelConfiguration(folder: path))
    }
    let ofMatrices = selected.map { Double($0.stored) / Double(max(1, $0.before)) }
    var text = """
      \(escaped(path, limit: 4096))
        tensors     \(matrices.count) as cores, \(dense) dense, \(tensors.count - matrices.count - dense) tied
        parameters  \(grouped(totals.parametersBefore)) -> \(grouped(totals.parametersStored)) \
      (ratio \(fixed(totals.ratio, 4)) of the \(totals.parametersOfTraining == nil ? "checkpoint" : "model")\(ofMatrices.map { ", \(fixed($0, 4)) of the matrices" } ?? "")), \
      \(grouped(totals.parametersTrainable)) trainable without the central cores
        bytes       \(Self.bytes(of: totals))

      """
    if let count = totals.parametersOfTraining {
      text += "  training    \(grouped(count)) numbers of training state, as they were\n"
    }
    if manifest.conversion?.links.isEmpty == false {
      let linked = tensors.flatMap { $0.blocks?.blocks.joined().filter { $0.rows != nil || $0.columns != nil } ?? [] }
      text +=
        "  linked      "
        + (linked.isEmpty
          ? "no matrices: each by itself has less error for its numbers\n"
          : "\(linked.count) matrices in \(Set(linked.map(\.operator)).count) operators\n")
    }
    let inMetric = matrices.compactMap(\.metricRelativeError)
    if !inMetric.isEmpty {
      let mean = (inMetric.reduce(0) { $0 + $1 * $1 } / Double(inMetric.count)).squareRoot()
      text += "  in metric   \(small(mean)) relative, root mean square over \(inMetric.count) matrices\n"
    }
    text += "  error       \(small(totals.relativeError)) relative (Frobenius), over the matrices in cores\n"
    // In a metric the Frobenius error is not what was minimised.
    let smallerSVD = matrices.count { matrix in
      guard matrix.metricRelativeError == nil, let error = matrix.relativeError, let svd = matrix.svdRelativeError
      else { return false }
      return svd < error * (1 - 1e-3)
    }
    if smallerSVD > 0, (totals.relativeError ?? 0) > 1e-5 {
      text +=
        "  note        truncated SVD of the same size has a smaller error for \(smallerSVD) of "
        + "\(matrices.count) matrices\n"
    }
    if let recipe = manifest.conversion, recipe.metric == nil, recipe.budget != .lossless, !matrices.isEmpty {
      text +=
        "  note        errors of weights are not errors of the model: 'python -m mpo_checkpoint calibrate' makes the "
        + "statistics that --calibration takes\n"
    }
    return text
  }
}
