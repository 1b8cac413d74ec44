import Glibc

/// A file or a folder that appears under its name whole or not at all.
///
/// It is written under a temporary name beside it, `.<name>.<random>.partial`, flushed to the disk, and renamed. The
/// temporary is locked while it is in use, so that what a killed process left behind is told from what another process
/// is writing: the next `init` for the same output removes the former.
public final class AtomicOutput: Sendable {
  /// What is written.
  public enum Kind: Sendable {
    /// A regular file.
    case file
    /// A folder with all that is in it.
    case folder
  }

  /// Why a folder that has something in it may not be replaced, given its path and the names in it; `nil` where it may.
  public typealias FolderRefusal = @Sendable (_ path: String, _ names: [String]) throws -> String?

  /// The path that the output will have.
  public let path: String
  /// Where to write until `commit`: an empty file, or an empty folder.
  public var temporaryPath: String { temporary.path }
  /// Whether it is a file or a folder.
  public let kind: Kind

  private let name: OutputName
  private let replacing: Bool
  private let folderRefusal: FolderRefusal
  private let registry: Registry
  private let temporary: Temporary

  /// Removes what killed processes left of the same output, and creates the temporary file or folder.
  ///
  /// - Parameters:
  ///   - path: The path that the output will have.
  ///   - kind: Whether it is a file or a folder.
  ///   - replacing: Whether an output that is there already may be replaced.
  ///   - folderRefusal: Which folders may not be replaced even so. Empty ones always may.
  /// - Throws: `FileError.outputExists`, `.outputNotReplaceable`, or `.io` where the folder around it is missing or not
  ///   writable.
  public convenience init(
    at path: String, kind: Kind, replacing: Bool, folderRefusal: @escaping FolderRefusal
  ) throws {
    try self.init(at: path, kind: kind, replacing: replacing, registry: .shared, folderRefusal: folderRefusal)
  }

  package init(
    at path: String, kind: Kind, replacing: Bool, registry: Registry, folderRefusal: @escaping FolderRefusal
  ) throws {
    let name = try OutputName(path)
    try AtomicOutput.checkParent(of: name)
    _ = try AtomicOutput.existing(name.path, kind, replacing: replacing, folderRefusal)
    AtomicOutput.sweep(beside: name)
    temporary = try registry.begin(name.path) { () throws(FileError) in try Temporary(for: name, kind) }
    self.path = name.path
    self.kind = kind
    self.name = name
    self.replacing = replacing
    self.folderRefusal = folderRefusal
    self.registry = registry
  }

  deinit { discard() }

  /// Flushes the content to the disk and gives the output its name.
  ///
  /// After an error the temporary is gone and what was there before is untouched.
  /// - Throws: `FileError`.
  public func commit() throws {
    defer { registry.remove(temporary) }
    let isOpen = try temporary.close { descriptor in
      do {
        switch kind {
        case .file:
          try FileError.naming(temporaryPath, "flush it") { () throws(SystemError) in
            try Posix.synchronize(descriptor)
          }
        case .folder: try flushFolder(at: temporaryPath)
        }
        try rename()
      } catch {
        temporary.remove()
        throw error
      }
    }
    guard isOpen else {
      throw FileError.io(file: path, operation: "complete it", reason: "it was discarded or completed before")
    }
    flushParent(of: path)
  }

  /// Removes the temporary; does nothing after `commit` or an earlier `discard`.
  public func discard() {
    temporary.discard()
    registry.remove(temporary)
  }

  // MARK: - Names

  /// Gives the temporary its final name.
  private func rename() throws {
    do {
      switch kind {
      case .file where replacing:
        _ = try AtomicOutput.existing(path, kind, replacing: true, folderRefusal)
        try Posix.rename(temporaryPath, to: path)
      case .file, .folder:
        // Twice at most: what was not there at first may be there then, and the other way round.
        for _ in 0..<2 {
          if try AtomicOutput.existing(path, kind, replacing: replacing, folderRefusal) {
            if try exchange() { return }
          } else {
            if try renameToFreeName() { return }
          }
        }
        throw FileError.outputExists(path: path)
      }
    } catch let error as SystemError {
      throw FileError.system(path, "give the finished output its name", error)
    }
  }

  /// The codes of a file system that can't rename in the way that was asked for.
  private static let unable = [EINVAL, ENOSYS, ENOTSUP]

  /// Renames where nothing is in the way; false when something is.
  private func renameToFreeName() throws -> Bool {
    do {
      try Posix.rename(temporaryPath, to: path, .noReplace)
      return true
    } catch {
      if error.code == EEXIST { return false }
      guard AtomicOutput.unable.contains(error.code) else { throw error }
    }
    // A link can't replace anything either; a folder leaves a moment between check and rename.
    if kind == .file, (try? Posix.link(temporaryPath, as: path)) != nil {
      try? Posix.unlink(temporaryPath)
      return true
    }
    if try FileStatus(at: path, followingLinks: false) != nil { return false }
    try Posix.rename(temporaryPath, to: path)
    return true
  }

  /// Swaps the temporary folder with the old one and removes that; false when the old one has vanished.
  private func exchange() throws -> Bool {
    do {
      try Posix.rename(temporaryPath, to: path, .exchange)
      removeTree(at: temporaryPath)
      return true
    } catch {
      if error.code == ENOENT { return false }
      guard AtomicOutput.unable.contains(error.code) else { throw error }
    }
    let old = name.temporaryPath()
    try Posix.rename(path, to: old)
    do {
      try Posix.rename(temporaryPath, to: path)
    } catch {
      try? Posix.rename(old, to: path)
      throw error
    }
    removeTree(at: old)
    return true
  }

  /// Whether an output is there that may be replaced; throws where one is that may not.
  private static func existing(
    _ path: String, _ kind: Kind, replacing: Bool, _ folderRefusal: FolderRefusal
  ) throws -> Bool {
    guard let status = try FileStatus(at: path, followingLinks: false) else { return false }
    guard replacing else { throw FileError.outputExists(path: path) }
    func refused(_ reason: String) -> FileError { .outputNotReplaceable(path: path, reason: reason) }
    switch (kind, status.kind) {
    case (.file, .file), (.file, .symbolicLink): return true
    case (.file, _): throw refused("it is \(status.kind.rawValue), and the output is a file")
    case (.folder, .folder): break
    case (.folder, _): throw refused("it is \(status.kind.rawValue), and the output is a folder")
    }
    let real = try realPath(of: path)
    if let current = Posix.workingFolder() {
      guard !(current + "/").utf8.starts(with: (real == "/" ? "/" : real + "/").utf8) else {
        throw refused("the working directory is in it")
      }
    }
    let names = try listFolder(at: path)
    if !names.isEmpty, let reason = try folderRefusal(path, names) { throw refused(reason) }
    return true
  }

  private static func checkParent(of name: OutputName) throws {
    func refused(_ reason: String) -> FileError { .io(file: name.path, operation: "create it", reason: reason) }
    guard let status = try FileStatus(at: name.parent) else {
      throw refused("there is no folder '\(escaped(name.parent))'; create it first")
    }
    guard status.kind == .folder else { throw refused("'\(escaped(name.parent))' is not a folder") }
    do {
      try Posix.checkAccess(name.parent, W_OK | X_OK)
    } catch {
      throw refused("the folder '\(escaped(name.parent))' is not writable (\(SystemError.reason(error.code)))")
    }
  }

  // MARK: - Litter

  /// Removes the temporaries of the same output that no process has locked.
  private static func sweep(beside name: OutputName) {
    guard let siblings = try? listFolder(at: name.parent) else { return }
    for sibling in siblings where name.isTemporary(sibling) {
      let path = name.parent + "/" + sibling
      guard let descriptor = try? Posix.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) else { continue }
      defer { Posix.close(descriptor) }
      if Posix.lock(descriptor), Temporary.isStill(descriptor, at: path) { removeTree(at: path) }
    }
    // What libraries put beside a temporary while they write it, where that is gone.
    for sibling in siblings {
      guard let temporary = name.temporary(besideWhich: sibling) else { continue }
      let owner = try? FileStatus(at: name.parent + "/" + temporary, followingLinks: false)
      if owner == .some(.none) { try? Posix.unlink(name.parent + "/" + sibling) }
    }
  }
}
