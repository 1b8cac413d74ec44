import CLinux
import Glibc
import Synchronization

/// A file or a folder that appears under its name whole or not at all.
///
/// It is written under a temporary name beside it, `.<name>.<random>.partial`, flushed to the disk, and renamed. The
/// temporary is locked while it is in use, so that what a killed process left behind is told from what another process
/// is writing: the next `init` for the same output removes the former.
public final class AtomicOutput: Sendable {
  public enum Kind: Sendable {
    case file
    case folder
  }

  /// The outputs of a process that are neither committed nor discarded.
  package final class Registry: Sendable {
    package static let shared = Registry()

    private struct Entry {
      weak var output: AtomicOutput?
    }
    private struct State {
      var entries: [ObjectIdentifier: Entry] = [:]
      /// Of all outputs that were ever begun.
      var names: [(temporary: String, final: String)] = []
      var isClosed = false
    }
    private let state = Mutex(State())

    package init() {}

    fileprivate var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Adds an output; false when the registry was closed.
    fileprivate func add(_ output: AtomicOutput) -> Bool {
      state.withLock { state in
        guard !state.isClosed else { return false }
        state.entries[ObjectIdentifier(output)] = Entry(output: output)
        state.names.append((output.temporaryPath, output.path))
        return true
      }
    }

    fileprivate func remove(_ output: AtomicOutput) {
      state.withLock { _ = $0.entries.removeValue(forKey: ObjectIdentifier(output)) }
    }

    fileprivate var names: [(temporary: String, final: String)] { state.withLock { $0.names } }

    package func discardAll() {
      let outputs = state.withLock { state in
        state.isClosed = true
        return state.entries.values.compactMap(\.output)
      }
      for output in outputs { output.discard() }
    }
  }

  private enum State {
    case open(descriptor: CInt)
    case closed
  }

  /// The path that the output will have.
  public let path: String
  /// Where to write until `commit`: an empty file, or an empty folder.
  public let temporaryPath: String
  public let kind: Kind

  private let name: OutputName
  private let replacing: Bool
  private let registry: Registry
  private let state: Mutex<State>

  /// Removes what killed processes left of the same output, and creates the temporary file or folder.
  ///
  /// - Parameter replacing: Whether an output that is there already may be replaced. A folder is replaced only when it
  ///   is empty, an MPO checkpoint, or a model folder.
  /// - Throws: `CheckpointError.outputExists`, `.outputNotReplaceable`, or `.io` where the folder around it is missing
  ///   or not writable.
  public convenience init(at path: String, kind: Kind, replacing: Bool) throws {
    try self.init(at: path, kind: kind, replacing: replacing, registry: .shared)
  }

  package init(at path: String, kind: Kind, replacing: Bool, registry: Registry) throws {
    let name = try OutputName(path)
    try AtomicOutput.checkParent(of: name)
    _ = try AtomicOutput.existing(name.path, kind, replacing: replacing)
    AtomicOutput.sweep(beside: name)
    guard !registry.isClosed else { throw AtomicOutput.interrupted(name.path) }
    let (temporaryPath, descriptor) = try AtomicOutput.createTemporary(for: name, kind)
    self.path = name.path
    self.temporaryPath = temporaryPath
    self.kind = kind
    self.name = name
    self.replacing = replacing
    self.registry = registry
    state = Mutex(.open(descriptor: descriptor))
    guard registry.add(self) else {
      discard()
      throw AtomicOutput.interrupted(name.path)
    }
  }

  deinit { discard() }

  /// Flushes the content to the disk and gives the output its name.
  ///
  /// After an error the temporary is gone and what was there before is untouched.
  public func commit() throws {
    defer { registry.remove(self) }
    try state.withLock { state in
      guard case .open(let descriptor) = state else {
        throw CheckpointError.io(file: path, operation: "complete it", reason: "it was discarded or completed before")
      }
      state = .closed
      defer { close(descriptor) }
      do {
        switch kind {
        case .file: try flush(descriptor, temporaryPath)
        case .folder: try flushFolder(at: temporaryPath)
        }
        try rename()
      } catch {
        remove()
        throw error
      }
    }
    // The content is safe and has its name; a folder that can't be flushed (some network file systems) is no failure.
    let parent = open(name.parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if parent >= 0 {
      fsync(parent)
      close(parent)
    }
  }

  /// Removes the temporary; does nothing after `commit` or an earlier `discard`.
  public func discard() {
    state.withLock { state in
      guard case .open(let descriptor) = state else { return }
      state = .closed
      remove()
      close(descriptor)
    }
    registry.remove(self)
  }

  /// Discards every output of this process that is not committed, and lets no new one begin: for a thread that handles
  /// signals, just before the process ends. (It is not for a signal handler itself.)
  ///
  /// Waits for a `commit` that has begun.
  public static func discardAll() { Registry.shared.discardAll() }

  /// A message with the names that outputs of this process were to get in place of their temporary ones.
  public static func withFinalNames(_ message: String) -> String {
    Registry.shared.names.reduce(message) { message, name in
      message.split(separator: escaped(name.temporary, limit: 4096), omittingEmptySubsequences: false)
        .joined(separator: escaped(name.final, limit: 4096))
    }
  }

  // MARK: - Names

  /// Gives the temporary its final name.
  private func rename() throws {
    switch kind {
    case .file where replacing:
      _ = try AtomicOutput.existing(path, kind, replacing: true)
      guard Glibc.rename(temporaryPath, path) == 0 else { throw renameError(errno) }
    case .file, .folder:
      // Twice at most: what was not there at first may be there then, and the other way round.
      for _ in 0..<2 {
        if try AtomicOutput.existing(path, kind, replacing: replacing) {
          if try exchange() { return }
        } else {
          if try renameToFreeName() { return }
        }
      }
      throw CheckpointError.outputExists(path: path)
    }
  }

  /// Renames where nothing is in the way; false when something is.
  private func renameToFreeName() throws -> Bool {
    if renameat2(AT_FDCWD, temporaryPath, AT_FDCWD, path, AtomicOutput.noReplace) == 0 { return true }
    switch errno {
    case EEXIST: return false
    case EINVAL, ENOSYS, ENOTSUP: break
    case let code: throw renameError(code)
    }
    // The file system can't: a link can't replace anything either; a folder leaves a moment between check and rename.
    if kind == .file, link(temporaryPath, path) == 0 {
      unlink(temporaryPath)
      return true
    }
    if try FileStatus(at: path, followingLinks: false) != nil { return false }
    guard Glibc.rename(temporaryPath, path) == 0 else { throw renameError(errno) }
    return true
  }

  /// Swaps the temporary folder with the old one and removes that; false when the old one has vanished.
  private func exchange() throws -> Bool {
    if renameat2(AT_FDCWD, temporaryPath, AT_FDCWD, path, AtomicOutput.exchange) == 0 {
      removeTree(at: temporaryPath)
      return true
    }
    switch errno {
    case ENOENT: return false
    case EINVAL, ENOSYS, ENOTSUP: break
    case let code: throw renameError(code)
    }
    let old = name.temporaryPath()
    guard Glibc.rename(path, old) == 0 else { throw renameError(errno) }
    guard Glibc.rename(temporaryPath, path) == 0 else {
      let code = errno
      _ = Glibc.rename(old, path)
      throw renameError(code)
    }
    removeTree(at: old)
    return true
  }

  private func renameError(_ code: CInt) -> CheckpointError {
    .system(path, "give the finished output its name", code)
  }

  /// Removes the temporary. A folder is renamed first: threads that still write into it can't add to it any more.
  private func remove() {
    switch kind {
    case .file: unlink(temporaryPath)
    case .folder:
      let doomed = name.temporaryPath()
      removeTree(at: Glibc.rename(temporaryPath, doomed) == 0 ? doomed : temporaryPath)
    }
  }

  /// Whether an output is there that may be replaced; throws where one is that may not.
  private static func existing(_ path: String, _ kind: Kind, replacing: Bool) throws -> Bool {
    guard let status = try FileStatus(at: path, followingLinks: false) else { return false }
    guard replacing else { throw CheckpointError.outputExists(path: path) }
    func refused(_ reason: String) -> CheckpointError { .outputNotReplaceable(path: path, reason: reason) }
    switch (kind, status.kind) {
    case (.file, .file), (.file, .symbolicLink): return true
    case (.file, _): throw refused("it is \(status.kind.rawValue), and the output is a file")
    case (.folder, .folder): break
    case (.folder, _): throw refused("it is \(status.kind.rawValue), and the output is a folder")
    }
    let real = try realPath(of: path)
    if let current = getcwd(nil, 0) {
      defer { free(current) }
      guard !(String(cString: current) + "/").hasPrefix(real == "/" ? "/" : real + "/") else {
        throw refused("the working directory is in it")
      }
    }
    let names = try listFolder(at: path)
    let isModel = names.contains { $0.hasPrefix("model") && $0.hasSuffix(".safetensors") }
    guard names.isEmpty || isModel || (names.contains("manifest.json") && isMPOManifest(at: path + "/manifest.json"))
    else {
      throw refused("it is a folder with other things in it, neither an MPO checkpoint nor a model folder")
    }
    return true
  }

  private static func checkParent(of name: OutputName) throws {
    func refused(_ reason: String) -> CheckpointError {
      .io(file: name.path, operation: "create it", reason: reason)
    }
    guard let status = try FileStatus(at: name.parent) else {
      throw refused("there is no folder '\(escaped(name.parent))'; create it first")
    }
    guard status.kind == .folder else { throw refused("'\(escaped(name.parent))' is not a folder") }
    guard access(name.parent, W_OK | X_OK) == 0 else {
      throw refused("the folder '\(escaped(name.parent))' is not writable (\(systemReason(errno)))")
    }
  }

  private static func interrupted(_ path: String) -> CheckpointError {
    .io(file: path, operation: "create it", reason: "the run was interrupted")
  }

  // MARK: - The temporary

  /// Creates and locks a file or folder under a temporary name.
  private static func createTemporary(
    for name: OutputName, _ kind: Kind
  ) throws -> (path: String, descriptor: CInt) {
    for _ in 0..<100 {
      let path = name.temporaryPath()
      var descriptor: CInt = -1
      switch kind {
      case .file:
        descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o666)
        if descriptor < 0 {
          let code = errno
          if code == EEXIST { continue }
          throw creationError(name, code)
        }
      case .folder:
        if mkdir(path, 0o777) != 0 {
          let code = errno
          if code == EEXIST { continue }
          throw creationError(name, code)
        }
        descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        if descriptor < 0 {
          let code = errno
          // Another process may have taken it for litter already.
          if code == ENOENT { continue }
          throw CheckpointError.system(name.path, "create it", code)
        }
      }
      // The same may happen before it is locked, so whoever has the lock looks whether it is still there.
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0, isStill(descriptor, at: path) { return (path, descriptor) }
      close(descriptor)
    }
    throw CheckpointError.io(file: name.path, operation: "create it", reason: "no temporary name beside it is free")
  }

  private static func creationError(_ name: OutputName, _ code: CInt) -> CheckpointError {
    // The folder was there a moment ago: that of a file system like /proc, which takes nothing.
    guard code == ENOENT else { return .system(name.path, "create it", code) }
    return .io(
      file: name.path, operation: "create it",
      reason: "the folder '\(escaped(name.parent))' takes no new files; choose another output")
  }

  /// Removes the temporaries of the same output that no process has locked.
  private static func sweep(beside name: OutputName) {
    guard let siblings = try? listFolder(at: name.parent) else { return }
    defer {
      // What libraries put beside a temporary while they write it, where that is gone.
      for sibling in siblings {
        guard let temporary = name.temporary(besideWhich: sibling),
          access(name.parent + "/" + temporary, F_OK) != 0, errno == ENOENT
        else { continue }
        unlink(name.parent + "/" + sibling)
      }
    }
    for sibling in siblings where name.isTemporary(sibling) {
      let path = name.parent + "/" + sibling
      let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
      guard descriptor >= 0 else { continue }
      defer { close(descriptor) }
      guard flock(descriptor, LOCK_EX | LOCK_NB) == 0, isStill(descriptor, at: path) else { continue }
      removeTree(at: path)
    }
  }

  private static func isStill(_ descriptor: CInt, at path: String) -> Bool {
    guard let opened = try? FileStatus(of: descriptor, path: path),
      let found = try? FileStatus(at: path, followingLinks: false)
    else { return false }
    return opened.isSame(as: found)
  }

  private static let noReplace: CUnsignedInt = 1
  private static let exchange: CUnsignedInt = 2
}

/// An output's path taken apart, and the names of its temporaries.
private struct OutputName {
  /// The path without trailing slashes.
  let path: String
  let parent: String
  private let name: String

  private static let ending = ".partial"
  private static let digitCount = 16

  init(_ given: String) throws {
    var path = given
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    let slash = path.lastIndex(of: "/")
    name = String(path[(slash.map { path.index(after: $0) } ?? path.startIndex)...])
    parent = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    self.path = path
    guard !["", ".", ".."].contains(name), !path.utf8.contains(0) else {
      throw CheckpointError.io(file: given, operation: "create it", reason: "it is no name for an output")
    }
  }

  /// A new path of the form `.<name>.<random>.partial`.
  func temporaryPath() -> String {
    let digits = String(UInt64.random(in: 0...UInt64.max), radix: 16)
    let random = String(repeating: "0", count: OutputName.digitCount - digits.count) + digits
    return "\(parent == "/" ? "" : parent)/.\(name).\(random)\(OutputName.ending)"
  }

  /// The temporary that a name is made from by adding a dot and six letters, as libzip does; `nil` for other names.
  func temporary(besideWhich sibling: String) -> String? {
    guard sibling.utf8.count > 7, sibling.utf8.suffix(7).first == UInt8(ascii: ".") else { return nil }
    let temporary = String(sibling.dropLast(7))
    return isTemporary(temporary) ? temporary : nil
  }

  func isTemporary(_ sibling: String) -> Bool {
    let prefix = ".\(name)."
    guard sibling.hasPrefix(prefix), sibling.hasSuffix(OutputName.ending) else { return false }
    let random = sibling.utf8.dropFirst(prefix.utf8.count).dropLast(OutputName.ending.utf8.count)
    return random.count == OutputName.digitCount
      && random.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
  }
}

/// Flushes an open file or folder.
private func flush(_ descriptor: CInt, _ path: String) throws {
  while fsync(descriptor) != 0 {
    let code = errno
    if code == EINTR { continue }
    throw CheckpointError.system(path, "flush it", code)
  }
}

/// Flushes everything in a folder, and the folder.
package func flushFolder(at path: String) throws {
  for name in try listFolder(at: path) {
    let inner = path + "/" + name
    switch try FileStatus(at: inner, followingLinks: false)?.kind {
    case .folder: try flushFolder(at: inner)
    case .file: try flushOpening(inner)
    default: continue
    }
  }
  try flushOpening(path)
}

private func flushOpening(_ path: String) throws {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
  guard descriptor >= 0 else { throw CheckpointError.system(path, "flush it", errno) }
  defer { close(descriptor) }
  try flush(descriptor, path)
}

/// Removes a file, or a folder with all that is in it; links are removed and not followed. What can't be removed stays.
package func removeTree(at path: String) {
  if unlink(path) == 0 || errno == ENOENT { return }
  let folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
  if folder >= 0 { removeContents(of: folder, depth: 0) }
  rmdir(path)
}

/// Removes all that is in an open folder, and closes it.
private func removeContents(of folder: CInt, depth: Int) {
  guard depth < 256, let stream = fdopendir(folder) else {
    close(folder)
    return
  }
  defer { closedir(stream) }
  while let entry = readdir(stream) {
    withUnsafePointer(to: &entry.pointee.d_name) { field in
      field.withMemoryRebound(to: CChar.self, capacity: 256) { name in
        if strcmp(name, ".") == 0 || strcmp(name, "..") == 0 { return }
        if unlinkat(folder, name, 0) == 0 { return }
        let inner = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        guard inner >= 0 else { return }
        removeContents(of: inner, depth: depth + 1)
        unlinkat(folder, name, AT_REMOVEDIR)
      }
    }
  }
}
