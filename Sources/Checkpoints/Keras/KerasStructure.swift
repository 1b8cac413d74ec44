/// How Keras and TensorFlow lay out HDF5 files, which tells the sides of the weights.
///
/// The weights of a file are `[…, in, out]` when its root group has one of the attributes that Keras writes
/// (`layer_names`, `keras_version`, `backend`, `model_config`, `top_level_model_weights`), or when all its tensors have
/// paths as `saving_lib` of Keras 3 gives them (`…/vars/0`, as in `.weights.h5` and `.keras`). In any other file a
/// dataset named as a Keras variable (`kernel`, `embeddings`, …, also with `:0` behind it) is `[…, in, out]`, and every
/// other one is `[out, in, …]`.
enum KerasStructure {
  private static let attributes: Set<String> = [
    "layer_names", "layer_names0", "keras_version", "backend", "model_config", "top_level_model_weights",
  ]
  private static let variables: Set<String> = [
    "kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel", "embeddings", "embedding",
  ]

  /// Whether the root group's attributes are those of a Keras file.
  static func isPresent(attributes names: [String]) -> Bool { names.contains { attributes.contains($0) } }

  /// Whether all paths are those of variables of Keras 3.
  static func isPresent(paths: some Collection<String>) -> Bool {
    !paths.isEmpty
      && paths.allSatisfy { path in
        let parts = path.split(separator: "/")
        return parts.count >= 2 && parts[parts.count - 2] == "vars" && Int(parts[parts.count - 1]) != nil
      }
  }

  /// Whether a dataset's name is that of a Keras weight.
  static func isVariable(path: String) -> Bool {
    guard var name = path.split(separator: "/").last else { return false }
    if let colon = name.lastIndex(of: ":"), Int(name[name.index(after: colon)...]) != nil { name = name[..<colon] }
    return variables.contains(String(name))
  }
}
