import Files

/// A folder that holds a model: weights in some format, configuration, tokenizer.
struct ModelFolder {
  /// The path it was given by, without trailing slashes.
  let path: String
  /// Whether links may lead anywhere.
  let followsLinks: Bool
  /// The folder itself, without symbolic links.
  private let root: String

  init(path: String, followingLinks: Bool = false) throws {
    self.path = withoutTrailingSlashes(path)
    followsLinks = followingLinks
    root = try realPath(of: self.path)
  }

  /// The path of a file of the folder, for opening.
  func path(of name: String) -> String { path == "/" ? "/" + name : path + "/" + name }

  /// The path of a file that something inside the folder names, which must not lead out of it.
  ///
  /// A link may leave the folder for the blobs of a model in a Hugging Face cache, or where links are followed.
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
      if try FileStatus(at: path, followingLinks: false) != nil {
        throw CheckpointError.notACheckpoint(
          path: path, reason: "is a link to a file that is missing; is the download complete?")
      }
      throw CheckpointError.notACheckpoint(
        path: path, reason: "no such file, but '\(escaped(source))' names it; is the download complete?")
    }
    guard status.kind == .file else { throw refused("is \(status.kind.rawValue), not a regular file") }
    guard try contains(realPath(of: path)) else {
      throw refused("is \(CheckpointError.leavingLink)")
    }
    return path
  }

  /// The names in the folder itself, in the order of their bytes.
  func names() throws -> [String] { try listFolder(at: path) }

  /// Files that only pipelines of several components have.
  static let pipelineNames: Set<String> = [diffusersName, "modules.json"]
  static let diffusersName = "model_index.json"

  /// The folders in it, at any depth, in the order of their bytes; no hidden ones, and links only where they are followed.
  func subfolders() throws -> [String] {
    var found: [String] = []
    func collect(_ prefix: String, depth: Int, above: Set<TensorName>) throws {
      let real = try TensorName(realPath(of: prefix.isEmpty ? path : path(of: prefix)))
      guard depth < 8, !above.contains(real) else { return }
      for name in try listFolder(at: prefix.isEmpty ? path : path(of: prefix)) where !name.hasPrefix(".") {
        let relative = prefix.isEmpty ? name : prefix + "/" + name
        guard try FileStatus(at: path(of: relative), followingLinks: followsLinks)?.kind == .folder else { continue }
        found.append(relative)
        try collect(relative, depth: depth + 1, above: above.union([real]))
      }
    }
    try collect("", depth: 0, above: [])
    return found
  }

  /// Whether a path without links lies in the folder, or in the blobs that a Hugging Face cache keeps of some model.
  func contains(_ real: String) throws -> Bool {
    if followsLinks || real.utf8.starts(with: (root == "/" ? "/" : root + "/").utf8) { return true }
    let parts = pathComponents(of: real)
    return parts.count >= 3 && parts[parts.count - 2] == "blobs" && parts[parts.count - 3].hasPrefix("models--")
  }
}

extension CheckpointError {
  /// What is said of a link that is not followed.
  package static let leavingLink = "a link that leaves the folder; replace it by the file it leads to"
}
