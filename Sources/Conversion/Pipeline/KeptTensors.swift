import Checkpoints
import Files

/// Tensors of a checkpoint that are no weights, although some are floating-point matrices: they stay as they are, whatever
/// a recipe includes.
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

  /// - Throws: the errors of reading: matrices that look like masks are read whole.
  init(of checkpoint: any DenseCheckpoint, _ configuration: ModelConfiguration) throws {
    let named = KeptTensors(checkpoint.tensors, configuration)
    var reasons = named.reasons
    for tensor in checkpoint.tensors where tensor.shape.count >= 2 && reasons[tensor.key] == nil {
      if try Self.isMask(tensor, in: checkpoint) { reasons[tensor.key] = .buffer }
    }
    tensors = named.tensors
    self.reasons = reasons
  }

  /// What the names say, and which tensors stand beside each other.
  init(_ tensors: [TensorInfo], _ configuration: ModelConfiguration) {
    let quantized = QuantizedWeights(tensors, isQuantized: configuration.isQuantized)
    let shapes = Dictionary(tensors.map { ($0.key, $0.shape) }, uniquingKeysWith: { first, _ in first })
    var reasons: [TensorName: Reason] = [:]
    var averages: [TensorName] = []
    for tensor in tensors {
      let name = TrainingName(tensor.name)
      if name.isOptimizer {
        reasons[tensor.key] = .trainingState
      } else if name.isAverage || name.withoutAverage.contains(where: { shapes[TensorName($0)] == tensor.shape }) {
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
    self.tensors = tensors
    self.reasons = reasons
  }

  /// A sentence for each kind that is there among the floating-point matrices, which could be taken for weights.
  var notices: [String] {
    Reason.allCases.compactMap { reason in
      let kept = tensors.filter { reasons[$0.key] == reason && $0.dtype.isDecomposable && $0.shape.count >= 2 }
      guard let first = kept.first else { return nil }
      let count = tensors.filter { reasons[$0.key] == reason }.reduce(0) { $0 + $1.elementCount }
      let outside = reason == .trainingState ? " (\(count) numbers), which no ratio counts" : ""
      let what = kept.count == 1 ? "one matrix is" : "\(kept.count) matrices are"
      return "\(what) \(reason.rawValue)\(outside); such tensors stay as they are: '\(escaped(first.name))'"
        + (kept.count > 1 ? ", …" : "")
    }
  }

  /// How many numbers the training state has.
  func trainingCount(floatsOnly: Bool = false) -> Int {
    tensors.filter { reasons[$0.key] == .trainingState && (!floatsOnly || $0.dtype.isDecomposable) }
      .reduce(0) { $0 + $1.elementCount }
  }

  private static func isBuffer(_ name: String) -> Bool {
    guard let last = components(of: name).last else { return false }
    return bufferNames.contains(last) || bufferEndings.contains { last.hasSuffix($0) }
  }

  private static let bufferNames: Set<String> = [
    "mask", "masked_bias", "causal_mask", "tril", "triu", "inv_freq", "original_inv_freq", "freqs_cis", "rope_cache",
    "cos", "sin", "position_ids", "relative_position_index", "relative_coords_table", "mel_filters", "mel_basis",
    "filterbank", "window", "hann_window", "dct_mat", "running_mean", "running_var", "num_batches_tracked",
  ]
  private static let bufferEndings = ["_mask", "_buffer", "_cached", "_cache", "cos_emb", "sin_emb"]

  static func components(of name: String) -> [String] {
    name.utf8.split { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "/") }
      .map { String(decoding: $0, as: UTF8.self).lowercased() }
  }

  /// Whether a tensor has two different elements, one of which is 0: a mask, whatever its name.
  private static func isMask(_ tensor: TensorInfo, in checkpoint: any DenseCheckpoint) throws -> Bool {
    let width = tensor.dtype.bitWidth / 8
    guard tensor.dtype.isDecomposable, tensor.elementCount >= 64 else { return false }
    func isMask(_ bytes: UnsafeRawBufferPointer, _ other: inout [UInt8]?) -> Bool {
      for start in stride(from: 0, to: bytes.count, by: width) {
        let element = bytes[start..<start + width]
        if element.allSatisfy({ $0 == 0 }) { continue }
        if let other { guard element.elementsEqual(other) else { return false } } else { other = Array(element) }
      }
      return true
    }
    var other: [UInt8]?
    guard
      try checkpoint.withBytes(of: tensor, in: 0..<min(tensor.byteCount, 64 * width), { isMask($0, &other) })
    else { return false }
    let blockSize = 1 << 20
    var zeros = 0
    for start in stride(from: 0, to: tensor.byteCount, by: blockSize) {
      let isMask = try checkpoint.withBytes(of: tensor, in: start..<min(start + blockSize, tensor.byteCount)) { bytes in
        guard isMask(bytes, &other) else { return false }
        for place in stride(from: 0, to: bytes.count, by: width)
        where bytes[place..<place + width].allSatisfy({ $0 == 0 }) { zeros += 1 }
        return true
      }
      guard isMask else { return false }
    }
    return other != nil && zeros > 0
  }
}

/// What the parts of a tensor's name say of training.
private struct TrainingName {
  private let name: String
  private let parts: [String]

  init(_ name: String) {
    self.name = name
    parts = KeptTensors.components(of: name)
  }

  /// Whether an optimizer keeps the tensor.
  var isOptimizer: Bool {
    if parts.contains(where: { Self.optimizerNames.contains(Self.withoutNumber($0)) }) { return true }
    guard let last = parts.last else { return false }
    let slot = Self.withoutNumber(last.split(separator: ":").first.map(String.init) ?? last)
    return parts.count > 1 && Self.slotNames.contains(slot)
  }

  /// Whether the tensor belongs to a copy of the model that is an average over training.
  var isAverage: Bool {
    parts.prefix(2).contains { Self.averageNames.contains($0) }
      || parts.last.map { $0.hasPrefix("exponentialmovingaverage") } ?? false
  }

  /// What the name could be of the tensor that this one is an average of.
  var withoutAverage: [String] {
    var found: [String] = []
    for mark in ["_ema", "ema_", ".ema", "ema.", "_averaged", "_avg", "avg_", "swa_", "_swa"] {
      var rest = name[...]
      while let range = rest.firstRange(of: mark) {
        var other = name
        other.removeSubrange(range)
        found.append(other)
        rest = rest[range.upperBound...]
      }
    }
    return found
  }

  /// `adam_1` as `adam`.
  private static func withoutNumber(_ part: String) -> String {
    guard let line = part.lastIndex(of: "_"), Int(part[part.index(after: line)...]) != nil else { return part }
    return String(part[..<line])
  }

  private static let optimizerNames: Set<String> = [
    "optimizer", "optimizers", "optimizer_weights", "optimizer_state", "optimizer_states", "optimizer_state_dict",
    "optim", "opt_state", "optimizer_slots", ".optimizer_slot", "optimizer_slot", "lr_scheduler", "grad_scaler",
    "_optimizer",
  ]
  private static let slotNames: Set<String> = [
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "acc_delta", "adam",
    "adam_m",
    "adam_v", "rmsprop", "momentum", "velocity", "adagrad", "adadelta", "accumulator", "adam_momentum", "adam_velocity",
    "exp_avg_slow", "grad_avg", "step_size",
  ]
  private static let averageNames: Set<String> = [
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "module_ema", "ema_params", "ema_weights",
    "averaged_model", "swa_model", "shadow_params", "moving_average",
  ]
}

/// The weights of a checkpoint that are quantised, as tensors of narrow integers or numbers of 8 bits and less.
private struct QuantizedWeights {
  private let isQuantized: Bool
  private let names: Set<TensorName>
  /// The modules that have one.
  private let modules: Set<TensorName>

  init(_ tensors: [TensorInfo], isQuantized: Bool) {
    self.isQuantized = isQuantized
    let found = tensors.filter { tensor in
      switch tensor.dtype {
      case .u8, .i8, .u16, .i16, .u32, .i32, .f4, .f6E2M3, .f6E3M2, .f8E4M3, .f8E5M2, .f8E4M3FNUZ, .f8E5M2FNUZ:
        tensor.elementCount >= 64
      default: false
      }
    }
    names = Set(found.map(\.key))
    modules = Set(found.map { TensorName(Self.split($0.name).module) }.filter { !$0.text.isEmpty })
  }

  /// Whether a tensor belongs to a quantised weight: it stands in the same module, or has its name and a word for a part
  /// behind it; in a model whose configuration says that it is quantised, the word is enough.
  func hasPart(_ tensor: TensorInfo) -> Bool {
    guard tensor.dtype.isDecomposable || tensor.dtype == .f8E8M0, !names.contains(tensor.key) else { return false }
    let (module, last) = Self.split(tensor.name)
    let word = last.lowercased()
    let isPart = Self.words.contains(word) || Self.endings.contains { word.hasSuffix($0) }
    if modules.contains(TensorName(module)) { return isPart || !["weight", "kernel", "bias"].contains(word) }
    guard isPart else { return false }
    if isQuantized || Self.unmistakable.contains(where: { word.hasSuffix($0) }) { return true }
    // `x.weight.absmax` beside `x.weight`, `gate_up_proj_scales` beside `gate_up_proj_blocks`.
    if names.contains(TensorName(module)) { return true }
    guard let ending = Self.endings.first(where: { word.hasSuffix($0) }) else { return false }
    let base = tensor.name.dropLast(ending.count)
    return ["", "_blocks", "_packed", "_quantized", "_int8", "_int4", "_q"].contains {
      names.contains(TensorName(base + $0))
    }
  }

  /// The module that a tensor is in, and its name there.
  private static func split(_ name: String) -> (module: String, last: String) {
    guard let dot = name.utf8.lastIndex(where: { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "/") }) else {
      return ("", name)
    }
    return (String(name[..<dot]), String(name[name.utf8.index(after: dot)...]))
  }

  private static let words: Set<String> = [
    "scale", "scales", "biases", "zero", "zeros", "qzeros", "zero_point", "zero_points", "absmax", "nested_absmax",
    "quant_map", "nested_quant_map", "codebook", "codebooks", "lut", "lookup_table", "scb", "g_idx", "qscale",
    "qscales",
    "channel_scales", "input_scale", "output_scale", "act_scale",
  ]
  private static let endings = [
    "_scale", "_scales", "_scale_inv", "_zero_point", "_zero_points", "_zeros", "_absmax", "_codebook", "_codebooks",
    "_scale_2", "_biases", "_lut", "_bias_scale",
  ]
  /// What nothing but the parts of quantised weights is called.
  private static let unmistakable = ["weight_scale_inv", "weight_scale", "qzeros", "quant_map", "zero_point", "absmax"]
}
