import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Reports

/// What a conversion did, in a few lines.
struct Summary {
  private let manifest: CheckpointManifest

  init(_ manifest: CheckpointManifest) { self.manifest = manifest }

  /// Of the source, of what is stored, and of that before it was packed.
  static func bytes(of totals: CheckpointManifest.Totals) -> String {
    let text = "\(Reports.bytes(totals.bytesBefore)) -> \(Reports.bytes(totals.bytesStored))"
    return text + (totals.bytesUnpacked.map { ", packed from \(Reports.bytes($0))" } ?? "")
  }

  /// What the errors of a manifest are.
  enum Errors { case measured, expected }

  func text(of path: String) -> String {
    "\(escaped(path, limit: 4096))\n" + lines(configuration: ModelConfiguration(folder: path))
  }

  /// - Parameter configuration: of the source.
  func lines(_ errors: Errors = .measured, configuration: ModelConfiguration) -> String {
    let expected = errors == .expected ? ", expected" : ""
    let totals = manifest.totals
    let tensors = manifest.contents.tensors
    let matrices = tensors.compactMap(\.blocks)
    let dense = tensors.count(where: \.isDense)
    let selected = manifest.conversion.map {
      $0.selection.parameters(in: manifest.contents, configuration)
    }
    let ofMatrices = selected.map { Double($0.stored) / Double(max(1, $0.before)) }
    var text = """
        tensors     \(matrices.count) as cores, \(dense) dense, \(tensors.count - matrices.count - dense) tied
        parameters  \(grouped(totals.parametersBefore)) -> \(grouped(totals.parametersStored)) \
      (ratio \(fixed(totals.ratio, 4)) of the \(totals.parametersOfTraining == nil ? "checkpoint" : "model")\(ofMatrices.map { ", \(fixed($0, 4)) of the matrices" } ?? "")), \
      \(grouped(totals.parametersTrainable)) trainable (auxiliary cores and vectors)
        bytes       \(Self.bytes(of: totals))\(isUnpacked(errors) ? " before packing" : "")

      """
    if let encodings = Self.encodings(of: manifest) { text += "  encodings   \(encodings)\n" }
    if let count = totals.parametersOfTraining {
      text += "  training    \(grouped(count)) numbers of training state, unchanged\n"
    }
    if manifest.conversion?.links.isEmpty == false {
      let linked = tensors.flatMap { $0.blocks?.blocks.joined().filter { $0.rows != nil || $0.columns != nil } ?? [] }
      text +=
        "  linked      "
        + (linked.isEmpty
          ? "no matrices: separately they have less error for their numbers\n"
          : "\(linked.count) matrices in \(Set(linked.map(\.operator)).count) operators\n")
    }
    let inMetric = matrices.compactMap(\.metricRelativeError)
    if !inMetric.isEmpty {
      let mean = (inMetric.reduce(0) { $0 + $1 * $1 } / Double(inMetric.count)).squareRoot()
      text +=
        "  in metric   \(small(mean)) relative, root mean square over \(inMetric.count) matrices\(expected)\n"
    }
    if errors == .measured || totals.relativeError != nil {
      text +=
        "  error       \(small(totals.relativeError)) relative (Frobenius), over the matrices in cores\(expected)\n"
    }
    if errors == .expected, let (error, name) = largestError {
      text += "  largest     \(small(error)), of '\(escaped(name))'\n"
    }
    // In a metric the Frobenius error is not what was minimised, and integers are counted in bytes.
    let smallerSVD = matrices.count { matrix in
      guard matrix.metricRelativeError == nil, let error = matrix.relativeError, let svd = matrix.svdRelativeError
      else { return false }
      return svd < error * (1 - 1e-3)
    }
    if smallerSVD > 0, Self.encodings(of: manifest) == nil, (totals.relativeError ?? 0) > 1e-5 {
      text +=
        "  note        truncated SVD of the same size has a smaller error for \(smallerSVD) of "
        + "\(matrices.count) matrices\n"
    }
    if let recipe = manifest.conversion, recipe.metric == nil, recipe.budget != .lossless, !matrices.isEmpty {
      text +=
        "  note        errors of weights are not errors of the model: make statistics with 'python -m mpo_checkpoint "
        + "calibrate' and pass them with --calibration\n"
    }
    return text
  }

  /// Where the bytes of integers are, and how many bits stand for a number; nil where there are none.
  static func encodings(of manifest: CheckpointManifest) -> String? {
    let cores = manifest.contents.cores
    guard cores.contains(where: { $0.encoding.integers != nil }) else { return nil }
    let bytes = Dictionary(cores.map { ($0.encoding.description, $0.storedBytes) }, uniquingKeysWith: +)
    let parts = bytes.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
      .map { "\($0.key) \(Reports.bytes($0.value))" }
    let numbers = manifest.contents.tensors.compactMap(\.blocks).reduce(0) { $0 + $1.rows * $1.columns }
    let bits = 8 * Double(bytes.values.reduce(0, +)) / Double(max(1, numbers))
    return "\(parts.joined(separator: ", ")): \(fixed(bits, 2)) bits for each number of the matrices"
  }

  private func isUnpacked(_ errors: Errors) -> Bool {
    errors == .expected && manifest.conversion?.pack == true
  }

  /// The largest error of a matrix, in the metric where there is one.
  private var largestError: (error: Double, name: String)? {
    manifest.contents.tensors.compactMap { record in
      record.blocks.flatMap { $0.metricRelativeError ?? $0.relativeError }.map { ($0, record.name) }
    }.max { $0.0 < $1.0 }
  }
}
