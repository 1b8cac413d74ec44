import Files

/// A folder that holds a model: weights in some format, configuration, tokenizer.
struct ModelFolder {
  /// The path it was given by, without trailing slashes.
  let path: String
  /// The folder itself, without symbolic links.
  private let root: String

  init(path: String) throws {
    self.path = withoutTrailingSlashes(path)
    root = try realPath(of: self.path)
  }

  /// The path of a file of the folder, for opening.
  func path(of name: String) -> String { path == "/" ? "/" + name : path + "/" + name }

  /// The path of a file that something inside the folder names, which must not lead out of it.
  ///
  /// A link may leave the folder in one case: from a snapshot in a Hugging Face cache to the blobs of the same model.
  ///
  /// - Parameter source: The file that names it, for messages.
  func checkedPath(of name: String, namedBy source: String) throws -> String {
    func refused(_ reason: String) -> CheckpointError {
      .unsupported(file: source, tensor: nil, reason: "the file '\(escaped(name))' \(reason)")
    }
    guard !name.isEmpty, !name.utf8.contains(0) else { throw refused("is not a file name") }
    guard name.utf8.first != UInt8(ascii: "/") else { throw refused("is an absolute path, which leaves the folder") }
    guard !pathComponents(of: name).contains("..") else {
      throw refused("leaves the folder")
    }
    let path = path(of: name)
    guard let status = try FileStatus(at: path) else {
      throw CheckpointError.notACheckpoint(
        path: path, reason: "no such file, but '\(escaped(source))' names it; is the download complete?")
    }
    guard status.kind == .file else { throw refused("is \(status.kind.rawValue), not a regular file") }
    guard try contains(realPath(of: path)) else {
      throw refused("is a link that leaves the folder; replace it by the file, or pass the file itself")
    }
    return path
  }

  /// The files beside the weights: relative paths in the order of their bytes.
  ///
  /// Hidden files, weights of any format, files over 64 MB and links that leave the folder are left out, as are folders
  /// that are links.
  func companions() throws -> [String] {
    var found: [String] = []
    try collectCompanions(in: "", depth: 0, &found)
    return found.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// The names in the folder itself, in the order of their bytes.
  func names() throws -> [String] { try listFolder(at: path) }

  private func collectCompanions(in prefix: String, depth: Int, _ found: inout [String]) throws {
    guard depth < 16 else { return }
    for name in try listFolder(at: prefix.isEmpty ? path : path(of: prefix)) where !name.hasPrefix(".") {
      let relative = prefix.isEmpty ? name : prefix + "/" + name
      let absolute = path(of: relative)
      guard let status = try FileStatus(at: absolute, followingLinks: false) else { continue }
      switch status.kind {
      case .folder: try collectCompanions(in: relative, depth: depth + 1, &found)
      case .file, .symbolicLink:
        guard !ModelFolder.isWeights(name), let target = try FileStatus(at: absolute), target.kind == .file,
          target.byteCount <= ModelFolder.maximumCompanionBytes, try contains(realPath(of: absolute))
        else { continue }
        found.append(relative)
      default: continue
      }
    }
  }

  /// Whether a path without links lies in the folder, or in the blobs that a Hugging Face cache keeps for it.
  private func contains(_ real: String) throws -> Bool {
    if real.utf8.starts(with: (root == "/" ? "/" : root + "/").utf8) { return true }
    let parts = pathComponents(of: root)
    guard parts.count >= 3, parts[parts.count - 2] == "snapshots", parts[parts.count - 3].hasPrefix("models--") else {
      return false
    }
    return real.utf8.starts(with: ("/" + parts.dropLast(2).joined(separator: "/") + "/blobs/").utf8)
  }

  /// Whether a file of this name holds weights, in any format, or lists the files that do.
  static func isWeights(_ name: String) -> Bool {
    let name = name.lowercased()
    return weightEndings.contains { name.hasSuffix($0) } || name.contains(".ckpt.") || name.contains(".data-0000")
  }

  private static let weightEndings = [
    ".safetensors", ".index.json", ".h5", ".hdf5", ".keras", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".onnx_data",
    ".msgpack", ".gguf", ".ggml", ".ot", ".tflite", ".npz", ".npy", ".pkl", ".pickle", ".pb", ".mlmodel", ".nemo",
  ]
  private static let maximumCompanionBytes = 64 << 20
}
