import Checkpoints
import Files

/// Tensors of a checkpoint that are no weights, although some are floating-point matrices: they stay as they are, unless a
/// recipe includes one by its whole name.
struct KeptTensors: Sendable {
  enum Reason: String, Sendable, CaseIterable {
    /// What an optimizer keeps, averages of the weights and counters. It is no part of the model, so no ratio counts it.
    case trainingState = "training state"
    /// Scales, zero points, biases and codebooks of weights that are quantised already.
    case quantization = "scales of quantised weights"
    /// Masks and tables that are computed and not learnt.
    case buffer = "masks and other buffers"
  }

  private let reasons: [TensorName: Reason]
  private let tensors: [TensorInfo]

  func reason(for tensor: TensorInfo) -> Reason? { reasons[tensor.key] }

  /// - Parameter include: globs of a selection; what one of them names in full is a weight for all that.
  /// - Throws: the errors of reading: matrices that look like masks are read whole.
  init(of checkpoint: any DenseCheckpoint, _ configuration: ModelConfiguration, include: [String] = []) throws {
    let named = KeptTensors(checkpoint.tensors, configuration, include: include)
    var reasons = named.reasons
    let included = Set(include.map { TensorName($0) })
    for tensor in checkpoint.tensors
    where tensor.shape.count >= 2 && reasons[tensor.key] == nil && !included.contains(tensor.key) {
      if try TensorContents.isMask(tensor, in: checkpoint) || TensorContents.isSinusoidal(tensor, in: checkpoint) {
        reasons[tensor.key] = .buffer
      }
    }
    tensors = named.tensors
    self.reasons = reasons
  }

  /// What the names say, and which tensors stand beside each other.
  init(_ tensors: [TensorInfo], _ configuration: ModelConfiguration, include: [String] = []) {
    let quantized = QuantizedWeights(tensors, isQuantized: configuration.isQuantized)
    let shapes = Dictionary(tensors.map { ($0.key, $0.shape) }, uniquingKeysWith: { first, _ in first })
    let names = tensors.map { TrainingName($0) }
    let copies = Self.copies(zip(tensors, names).map { ($0.shape, $1.copied) }, shapes)
    var reasons: [TensorName: Reason] = [:]
    var averages: [TensorName] = []
    for (tensor, name) in zip(tensors, names) {
      if name.isOptimizer(shapes) || name.copied.map({ copies.contains($0.module) }) ?? false {
        reasons[tensor.key] = .trainingState
      } else if name.isAverage || name.isAverageOfPartner(shapes) {
        averages.append(tensor.key)
      } else if quantized.hasPart(tensor) {
        reasons[tensor.key] = .quantization
      } else if Self.isBuffer(tensor.name) {
        reasons[tensor.key] = .buffer
      }
    }
    // A checkpoint of averages alone is a model.
    let averageSet = Set(averages)
    let hasOthers = tensors.contains {
      $0.dtype.isDecomposable && $0.shape.count >= 2 && reasons[$0.key] == nil && !averageSet.contains($0.key)
    }
    if hasOthers { for name in averages { reasons[name] = .trainingState } }
    for name in include { reasons[TensorName(name)] = nil }
    self.tensors = tensors
    self.reasons = reasons
  }

  /// The modules that are copies of others, all of whose tensors have one of the same shape there.
  private static func copies(
    _ tensors: [(shape: [Int], copied: (module: TensorName, original: TensorName)?)], _ shapes: [TensorName: [Int]]
  ) -> Set<TensorName> {
    var isCopy: [TensorName: Bool] = [:]
    for (shape, copied) in tensors {
      guard let (module, original) = copied else { continue }
      isCopy[module] = (isCopy[module] ?? true) && shapes[original] == shape
    }
    return Set(isCopy.filter(\.value).keys)
  }

  /// A sentence for each kind that is there among the floating-point matrices, which could be taken for weights.
  var notices: [String] {
    Reason.allCases.compactMap { reason in
      let kept = tensors.filter { reasons[$0.key] == reason && $0.dtype.isDecomposable && $0.shape.count >= 2 }
      guard let first = kept.first else { return nil }
      let count = tensors.filter { reasons[$0.key] == reason }.reduce(0) { $0 + $1.elementCount }
      let outside = reason == .trainingState ? " (\(count) numbers, counted in no ratio)" : ""
      let what = kept.count == 1 ? "one matrix is" : "\(kept.count) matrices are"
      return "\(what) \(reason.rawValue)\(outside) and stored unchanged: '\(escaped(first.name))'"
        + (kept.count > 1 ? ", …" : "")
    }
  }

  /// Whether a tensor is a mask or a table, by its name.
  static func isBuffer(_ name: String) -> Bool {
    let parts = name.utf8.split(whereSeparator: isSeparator).map { String(decoding: $0, as: UTF8.self).lowercased() }
    guard let last = parts.last else { return false }
    return bufferNames.contains(last) || bufferEndings.contains { last.hasSuffix($0) }
      || last == "fb" && parts.dropLast().last?.contains("mel") ?? false
  }

  private static let bufferNames: Set<String> = [
    "mask", "masked_bias", "causal_mask", "tril", "triu", "inv_freq", "original_inv_freq", "freqs_cis", "rope_cache",
    "cos", "sin", "position_ids", "relative_position_index", "relative_coords_table", "mel_filters", "mel_basis",
    "filterbank", "melscale_fbanks", "forward_basis", "inverse_basis", "window", "hann_window", "dct_mat",
    "running_mean", "running_var", "num_batches_tracked",
  ]
  private static let bufferEndings = ["_mask", "_buffer", "_cached", "_cache", "cos_emb", "sin_emb"]

  /// Whether a byte stands between the parts of a name.
  static func isSeparator(_ byte: UInt8) -> Bool { byte == UInt8(ascii: ".") || byte == UInt8(ascii: "/") }
}
