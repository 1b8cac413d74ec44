import Checkpoints

/// The weights of a checkpoint that are quantised, as tensors of narrow integers or numbers of 8 bits and less.
struct QuantizedWeights {
  private let isQuantized: Bool
  private let names: Set<TensorName>
  /// The modules that have one, and how many elements the largest has.
  private let modules: [TensorName: Int]

  init(_ tensors: [TensorInfo], isQuantized: Bool) {
    self.isQuantized = isQuantized
    let found = tensors.filter { tensor in
      switch tensor.dtype {
      case .u8, .i8, .u16, .i16, .u32, .i32, .f4, .f6E2M3, .f6E3M2, .f8E4M3, .f8E5M2, .f8E4M3FNUZ, .f8E5M2FNUZ:
        tensor.elementCount >= 64 && (isQuantized || !Self.isTable(tensor.name))
      default: false
      }
    }
    names = Set(found.map(\.key))
    modules = Dictionary(
      found.map { (TensorName(Self.split($0.name).module), $0.elementCount) }.filter { !$0.0.text.isEmpty },
      uniquingKeysWith: max)
  }

  /// Whether a tensor belongs to a quantised weight: it stands in the same module, or has its name and a word for a part
  /// behind it; in a model whose configuration says that it is quantised, the word is enough.
  func hasPart(_ tensor: TensorInfo) -> Bool {
    guard tensor.dtype.isDecomposable || tensor.dtype == .f8E8M0, !names.contains(tensor.key) else { return false }
    let (module, last) = Self.split(tensor.name)
    let word = last.lowercased()
    let isPart = Self.words.contains(word) || Self.endings.contains { word.hasSuffix($0) }
    if let count = modules[TensorName(module)] {
      // What has a name of its own is a part when it is far smaller than the weight.
      return isPart || !Self.weightEndings.contains { word.hasSuffix($0) } && tensor.elementCount <= count / 4
    }
    // `m.q.centroids.weight` beside `m.q.indices`.
    let (outer, inner) = Self.split(module)
    if Self.words.contains(inner.lowercased()), isQuantized || modules[TensorName(outer)] != nil { return true }
    guard isPart else { return false }
    if isQuantized || Self.unmistakable.contains(where: { word.hasSuffix($0) }) { return true }
    // `x.weight.absmax` beside `x.weight`, `gate_up_proj_scales` beside `gate_up_proj_blocks`.
    if names.contains(TensorName(module)) { return true }
    guard let ending = Self.endings.first(where: { word.hasSuffix($0) }) else { return false }
    let base = tensor.name.dropLast(ending.count)
    return ["", "_blocks", "_packed", "_quantized", "_qdata", "_int8", "_int4", "_q"].contains {
      names.contains(TensorName(base + $0))
    }
  }

  /// Whether a tensor of integers is a table of positions or a mask, by its name, and no weight.
  private static func isTable(_ name: String) -> Bool {
    let last = split(name).last.lowercased()
    return ["index", "indices", "_ids", "ids", "position", "coords"].contains { last.contains($0) }
      || KeptTensors.isBuffer(name) || ["bias", "attn_bias", "mask"].contains(last)
  }

  /// The module that a tensor is in, and its name there.
  private static func split(_ name: String) -> (module: String, last: String) {
    guard let dot = name.utf8.lastIndex(where: KeptTensors.isSeparator) else { return ("", name) }
    return (String(name[..<dot]), String(name[name.utf8.index(after: dot)...]))
  }

  private static let weightEndings = [
    "weight", "kernel", "bias", "table", "embedding", "embeddings", "proj", "lora_a", "lora_b",
  ]
  private static let words: Set<String> = [
    "scale", "scales", "biases", "zero", "zeros", "qzeros", "zero_point", "zero_points", "absmax", "nested_absmax",
    "quant_map", "nested_quant_map", "codebook", "codebooks", "lut", "lookup_table", "scb", "g_idx", "qscale",
    "qscales", "channel_scales", "input_scale", "output_scale", "act_scale", "centroids", "res_centroids",
    "outlier_centroids", "codebook_grid",
  ]
  private static let endings = [
    "_scale", "_scales", "_scale_inv", "_zero_point", "_zero_points", "_zeros", "_absmax", "_codebook", "_codebooks",
    "_scale_2", "_biases", "_lut", "_bias_scale",
  ]
  /// What nothing but the parts of quantised weights is called.
  private static let unmistakable = ["weight_scale_inv", "weight_scale", "qzeros", "quant_map", "zero_point", "absmax"]
}
