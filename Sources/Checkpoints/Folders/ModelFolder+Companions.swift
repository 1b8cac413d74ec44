import Files

extension ModelFolder {
  /// What stands beside the weights.
  ///
  /// - Parameters:
  ///   - components: The weights that are read.
  ///   - opened: The files by which they were opened: they themselves, or the indices of their shards.
  /// - Returns: The paths of the files that belong to the model, in the order of their bytes: whatever is not read, is no
  ///   other copy of the model's weights, and is not kept by a tool for itself; and what is to be said of the rest.
  func companions(
    of components: [CheckpointComponent], openedBy opened: [String]
  ) throws -> (companions: [String], notices: [String]) {
    var walk = CompanionWalk(folder: self, components: components, opened: opened)
    try walk.collect("", depth: 0, above: [TensorName(realPath(of: path))])
    let found = walk.found.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    return (found, walk.notices)
  }
}

/// Looks at everything in a model folder.
private struct CompanionWalk {
  private let folder: ModelFolder
  /// Paths that are read, which are no companions: files of weights. (An index is one: it says what is in which file.)
  private var read: Set<TensorName> = []
  /// The names of the components' files, by their folders, relative.
  private var components: [TensorName: [String]] = [:]
  private(set) var found: [String] = []
  /// Files by the reason why they are left out, in the order of their discovery.
  private var leftOut: [(reason: String, files: [String])] = []
  private var carriedWeights: [String] = []

  init(folder: ModelFolder, components: [CheckpointComponent], opened: [String]) {
    self.folder = folder
    indices = Set(opened.filter { $0.hasSuffix(".json") }.map { TensorName($0) })
    for component in components {
      self.components[TensorName(Self.parent(of: component.file)), default: []]
        .append(pathComponents(of: component.file).last ?? component.file)
      read.formUnion(
        component.checkpoint.files.compactMap { file in
          let root = folder.path == "/" ? "/" : folder.path + "/"
          guard file.utf8.starts(with: root.utf8) else { return nil }
          return TensorName(String(decoding: file.utf8.dropFirst(root.utf8.count), as: UTF8.self))
        })
    }
  }

  /// - Parameter above: the folders around it, without links.
  mutating func collect(_ prefix: String, depth: Int, above: Set<TensorName>) throws {
    let place = prefix.isEmpty ? folder.path : folder.path(of: prefix)
    let (names, invalid) = try listFolderWithInvalidNames(at: place)
    if invalid > 0 {
      leaveOut(prefix.isEmpty ? "\(invalid) names" : "\(prefix): \(invalid) names", "names that are not UTF-8")
    }
    for name in names {
      let relative = prefix.isEmpty ? name : prefix + "/" + name
      let absolute = folder.path(of: relative)
      guard let status = try FileStatus(at: absolute, followingLinks: false) else { continue }
      guard let target = try FileStatus(at: absolute) else {
        leaveOut(relative, "links to nothing")
        continue
      }
      let real = try TensorName(realPath(of: absolute))
      if status.kind == .symbolicLink, try !folder.contains(real.text) {
        leaveOut(relative, CompanionWalk.leavingLinks)
        continue
      }
      switch target.kind {
      case .folder:
        if Self.toolFolders.contains(name) {
          leaveOut(relative, "folders of other tools")
        } else if depth >= 32 || above.contains(real) || status.kind == .symbolicLink && !folder.followsLinks {
          leaveOut(relative, status.kind == .symbolicLink ? "links to folders" : "folders too deep")
        } else {
          try collect(relative, depth: depth + 1, above: above.union([real]))
        }
      case .file:
        if read.contains(TensorName(relative)) { continue }
        if WeightsName.isCopy(name, beside: components[TensorName(prefix)] ?? []),
          !isIndexInUse(relative)
        {
          leaveOut(relative, "the same weights in another format")
        } else {
          found.append(relative)
          if WeightsName.isWeights(name), !isIndexInUse(relative) { carriedWeights.append(relative) }
        }
      default: leaveOut(relative, "neither files nor folders")
      }
    }
  }

  static let leavingLinks = "links that leave the folder"

  private static let toolFolders: Set<String> = [".git", ".cache", ".ipynb_checkpoints", "__pycache__", ".svn", ".hg"]

  /// The indices by which shards were found.
  private let indices: Set<TensorName>

  private func isIndexInUse(_ path: String) -> Bool { indices.contains(TensorName(path)) }

  private mutating func leaveOut(_ path: String, _ reason: String) {
    if let index = leftOut.firstIndex(where: { $0.reason == reason }) {
      leftOut[index].files.append(path)
    } else {
      leftOut.append((reason, [path]))
    }
  }

  var notices: [String] {
    func names(_ files: [String]) -> String { listed(files.map { "'\(escaped($0))'" }, limit: 100) }
    var result = leftOut.map { "not copied, \($0.reason): \(names($0.files))" }
    if !carriedWeights.isEmpty { result.append("copied unchanged, not converted: \(names(carriedWeights))") }
    return result
  }

  private static func parent(of path: String) -> String {
    path.utf8.contains(UInt8(ascii: "/")) ? parentFolder(of: path) : ""
  }
}
