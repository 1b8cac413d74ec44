import Checkpoints

/// What the parts of a tensor's name say of training.
struct TrainingName {
  private let name: [UInt8]
  private let shape: [Int]
  /// The parts between dots and slashes: where they are in the name, and in lower case without `:0` and `_1` behind them.
  private let parts: [(range: Range<Int>, word: String)]

  init(_ tensor: TensorInfo) {
    name = Array(tensor.name.utf8)
    shape = tensor.shape
    var parts: [(range: Range<Int>, word: String)] = []
    var start = 0
    for end in name.indices.filter({ [name] in KeptTensors.isSeparator(name[$0]) }) + [name.count] {
      if end > start {
        parts.append((start..<end, Self.word(String(decoding: name[start..<end], as: UTF8.self).lowercased())))
      }
      start = end + 1
    }
    self.parts = parts
  }

  /// Whether an optimizer keeps the tensor, or a trainer that compares models.
  ///
  /// - Parameter shapes: of all tensors beside it.
  func isOptimizer(_ shapes: [TensorName: [Int]]) -> Bool {
    guard let last = parts.last?.word, parts.count > 1 || Self.queues.contains(last) else { return false }
    if parts.contains(where: { Self.slots.contains($0.word) || Self.states.contains($0.word) }) { return true }
    if Self.lastSlots.contains(last) || Self.queues.contains(last)
      || Self.slots.contains(where: { last.hasSuffix("_" + $0) })
    {
      return true
    }
    if parts.indices.contains(where: { isOptimizer(at: $0, shapes) }) { return true }
    // Words that a layer may have as well: only beside the weight they are of.
    if Self.ambiguousSlots.contains(last), hasPartner(without(parts.count - 1), shapes) { return true }
    let isFirst = Self.ambiguousSlots.contains(parts[0].word) || Self.lastSlots.contains(parts[0].word)
    if isFirst, parts.count > 2, hasPartner(from(1), shapes) { return true }
    let text = String(decoding: name, as: UTF8.self).lowercased()
    return Self.joinedSlots.contains { text.hasSuffix($0) && hasPartner(name.dropLast($0.utf8.count), shapes) }
  }

  /// Whether the part at an index is an optimizer and not a layer of that name.
  private func isOptimizer(at index: Int, _ shapes: [TensorName: [Int]]) -> Bool {
    let words = parts[index].word.split(whereSeparator: { $0 == "_" || $0 == "-" })
    guard words.contains(where: { Self.optimizers.contains(String($0)) }), index + 1 < parts.count,
      !parts[..<index].contains(where: { Self.containers.contains($0.word) })
    else { return false }
    let behind = parts[(index + 1)...].map(\.word)
    return behind.contains {
      Self.lastSlots.contains($0) || Self.ambiguousSlots.contains($0) || Self.members.contains($0)
    }
      || !Self.weights.contains(behind[behind.count - 1])
      || parts.indices[(index + 1)...].contains { hasPartner(from($0), shapes) }
  }

  /// Whether the tensor belongs to a copy of the model that is an average over training.
  var isAverage: Bool {
    parts.prefix(2).contains { Self.averages.contains($0.word) }
      || parts.last.map { $0.word.hasPrefix("exponentialmovingaverage") } ?? false
  }

  /// Whether a tensor of the same shape is there that this one is an average of, by its name.
  func isAverageOfPartner(_ shapes: [TensorName: [Int]]) -> Bool {
    name.indices.contains { start in
      Self.marks.contains { mark in
        mark[0] == name[start] && name[start...].starts(with: mark)
          && hasPartner(name[..<start] + name[(start + mark.count)...], shapes)
      }
    }
  }

  /// The module that is a copy of another, by a part of its name (`visual_encoder_m` of `visual_encoder`), and the name of
  /// the tensor there; nil for others.
  var copied: (module: TensorName, original: TensorName)? {
    for (range, _) in parts {
      let part = String(decoding: name[range], as: UTF8.self)
      let other: String
      if let ending = ["_momentum", "_m"].first(where: { part.hasSuffix($0) }) {
        other = String(part.dropLast(ending.count))
      } else if part.hasPrefix("momentum_") {
        other = String(part.dropFirst("momentum_".count))
      } else if part == "encoder_k" {
        other = "encoder_q"
      } else {
        continue
      }
      let original = name[..<range.lowerBound] + Array(other.utf8) + name[range.upperBound...]
      return (Self.tensorName(name[..<range.upperBound]), Self.tensorName(original))
    }
    return nil
  }

  private func hasPartner(_ other: some Collection<UInt8>, _ shapes: [TensorName: [Int]]) -> Bool {
    shapes[Self.tensorName(other)] == shape
      // `dense/kernel/Momentum:0` of `dense/kernel:0`.
      || name.suffix(2).elementsEqual(":0".utf8) && shapes[Self.tensorName(other + Array(":0".utf8))] == shape
  }

  /// The name without one of its parts.
  private func without(_ index: Int) -> [UInt8] {
    let range = parts[index].range
    return range.lowerBound > 0
      ? Array(name[..<(range.lowerBound - 1)] + name[range.upperBound...]) : Array(name.dropFirst(range.upperBound + 1))
  }

  /// The name from one of its parts on.
  private func from(_ index: Int) -> ArraySlice<UInt8> { name[parts[index].range.lowerBound...] }

  private static func tensorName(_ bytes: some Collection<UInt8>) -> TensorName {
    TensorName(String(decoding: Array(bytes), as: UTF8.self))
  }

  /// `adam_1:0` as `adam`.
  private static func word(_ part: String) -> String {
    let part = part.split(separator: ":").first.map(String.init) ?? part
    guard let line = part.lastIndex(of: "_"), Int(part[part.index(after: line)...]) != nil else { return part }
    return String(part[..<line])
  }

  private static let marks = [
    "_ema", "ema_", ".ema", "ema.", "_averaged", "_avg", "avg_", "swa_", "_swa",
  ].map { Array($0.utf8) }
  private static let optimizers: Set<String> = ["optimizer", "optimizers", "optim"]
  /// What holds layers: an optimizer in it is one of them.
  private static let containers: Set<String> = [
    "layers", "layer", "model_weights", "_layer_checkpoint_dependencies", "modules", "module", "model", "network",
    "net", "backbone", "encoder", "decoder", "blocks", "block", "functional", "sequential", "transformer",
  ]
  /// What nothing but the state of training is called.
  private static let states: Set<String> = [
    "optimizer_weights", "optimizer_state", "optimizer_states", "optimizer_state_dict", "opt_state", "optimizer_slots",
    "optimizer_slot", "param_states", "lr_scheduler", "grad_scaler",
  ]
  /// Of PyTorch's optimizers.
  private static let slots: Set<String> = [
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col", "exp_inf", "momentum_buffer",
    "square_avg", "acc_delta", "exp_avg_slow", "grad_avg",
  ]
  /// Of TensorFlow's, behind the name of the weight.
  private static let lastSlots: Set<String> = [
    "adam", "adam_m", "adam_v", "rmsprop", "adagrad", "adadelta", "adam_momentum", "adam_velocity",
  ]
  private static let ambiguousSlots: Set<String> = [
    "m", "v", "mu", "nu", "momentum", "velocity", "accumulator", "ftrl", "step_size", "moments", "moment1", "moment2",
  ]
  private static let joinedSlots = [
    "_momentum", "_velocity", "_accumulator", "_adam_m", "_adam_v", "_moment1_0", "_moment2_0", "_velocity_0",
  ]
  private static let members: Set<String> = ["state", "states", "vars", "_variables", "param_groups", "slots"]
  /// Examples of earlier steps that contrastive training keeps.
  private static let queues: Set<String> = ["queue", "image_queue", "text_queue", "idx_queue"]
  private static let weights: Set<String> = [
    "weight", "bias", "kernel", "gamma", "beta", "embeddings", "embedding", "recurrent_kernel", "depthwise_kernel",
    "pointwise_kernel", "moving_mean", "moving_variance",
  ]
  private static let averages: Set<String> = [
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "module_ema", "ema_params", "ema_weights",
    "averaged_model", "swa_model", "shadow_params", "moving_average",
  ]
}
