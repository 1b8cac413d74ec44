import Files

/// What the name of a file says of weights in it.
enum WeightsName {
  /// Whether a file of this name holds weights, in any format, or lists the files that do.
  static func isWeights(_ name: String) -> Bool {
    let name = name.lowercased()
    return isIndex(name) || endings.contains { name.hasSuffix($0) } || isWholeModel(name)
      || pickleEndings.contains { name.hasSuffix($0) } && (name.contains("model") || name.contains("weights"))
  }

  /// Whether a file of this name holds the weights of a model once more, rather than something else that belongs to it.
  ///
  /// - Parameter weights: the files in the same folder that are read, or their indices.
  static func isCopy(_ name: String, beside weights: [String]) -> Bool {
    let name = name.lowercased()
    if isWholeModel(name) { return true }
    // An adapter is not a copy of a model, nor the other way round.
    guard weights.contains(where: { isAdapter($0.lowercased()) == isAdapter(name) }) else { return false }
    guard isIndex(name) || (endings + pickleEndings).contains(where: { name.hasSuffix($0) }) else { return false }
    return copyNames.contains { copy in
      guard name.hasPrefix(copy) else { return false }
      let rest = name.dropFirst(copy.count)
      return rest.hasPrefix(".") || rest.hasPrefix("-") || rest.hasPrefix("_0")
    }
  }

  private static func isAdapter(_ name: String) -> Bool {
    ["adapter_model", "pytorch_lora_weights"].contains { name.hasPrefix($0) }
  }

  /// The names without variants of others among them: `model.fp16.safetensors` beside `model.safetensors`.
  static func withoutVariants(_ names: [String]) -> [String] {
    let all = Set(names.map { TensorName($0) })
    return names.filter { name in
      let parts = name.split(separator: ".", omittingEmptySubsequences: false)
      return !parts.indices.dropFirst().contains { index in
        all.contains(TensorName((parts[..<index] + parts[(index + 1)...]).joined(separator: ".")))
      }
    }
  }

  /// Whether a file of this name is the index of safetensors shards, also of a variant (`model.safetensors.index.fp16.json`).
  static func isSafetensorsIndex(_ name: String) -> Bool {
    name.hasSuffix(".json") && name.contains(".safetensors.index.")
  }

  /// Whether a file that was given by its path is opened as an index of tensors, whatever library wrote it: also one of
  /// pickles, which is refused by name.
  static func isIndex(path: String) -> Bool {
    path.hasSuffix(".index.json") || isSafetensorsIndex(pathComponents(of: path).last ?? path)
  }

  /// Whether a file of this name is the index of sharded Keras weights.
  static func isKerasIndex(_ name: String) -> Bool { name.hasSuffix(kerasIndexEnding) }

  static let kerasIndexEnding = ".weights.json"

  /// Whether a file of this name lists the shards of weights, in any format.
  private static func isIndex(_ name: String) -> Bool {
    isSafetensorsIndex(name) || isKerasIndex(name)
      || name.hasSuffix(".json") && [".bin.index.", ".h5.index.", ".msgpack.index."].contains { name.contains($0) }
  }

  /// Whether a file is one shard of several by its name: `model-00001-of-00003.safetensors`, `model_00000.weights.h5`.
  static func isShard(_ name: String) -> Bool {
    name.contains(/_[0-9]{5}\.weights\.h5$/)
      || name.contains(/-[0-9]{5}-of-[0-9]{5}\b/) && !name.contains(/-00001-of-00001\b/)
  }

  /// Whether a file of this name holds tensors as pickles.
  static func isPickle(_ name: String) -> Bool { [".bin", ".pt", ".pth", ".ckpt"].contains { name.hasSuffix($0) } }

  /// Whether a file of this name holds a whole model in a format that is not read here.
  static func isWholeModel(_ name: String) -> Bool {
    wholeModelEndings.contains { name.hasSuffix($0) } || name.contains(".ckpt.") || name.contains(".data-0000")
  }

  private static let endings = [".safetensors", ".h5", ".hdf5", ".keras"]
  private static let pickleEndings = [".bin", ".pt", ".pth", ".pkl", ".pickle", ".npz", ".npy"]
  private static let wholeModelEndings = [
    ".ckpt", ".onnx", ".onnx_data", ".msgpack", ".gguf", ".ggml", ".ot", ".tflite", ".pb", ".mlmodel", ".nemo",
  ]
  private static let copyNames = [
    "model", "pytorch_model", "tf_model", "flax_model", "rust_model", "consolidated", "diffusion_pytorch_model",
    "diffusion_flax_model", "adapter_model", "open_clip_pytorch_model", "open_clip_model", "openvino_model",
    "pytorch_lora_weights", "model_weights", "ggml-model",
  ]
}
