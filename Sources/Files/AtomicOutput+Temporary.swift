import Glibc
import Synchronization

extension AtomicOutput {
  /// What an output is until it is complete: a file or folder under a name of its own, locked.
  final class Temporary: Sendable {
    let path: String
    private let name: OutputName
    private let kind: Kind
    /// `nil` once it is complete or discarded.
    private let descriptor: Mutex<CInt?>

    init(for name: OutputName, _ kind: Kind) throws(FileError) {
      let (path, descriptor) = try Temporary.create(for: name, kind)
      self.path = path
      self.name = name
      self.kind = kind
      self.descriptor = Mutex(descriptor)
    }

    /// Runs `body` and lets go of the lock; false, without running it, where that was done before.
    func close(_ body: (CInt) throws -> Void) rethrows -> Bool {
      try descriptor.withLock { current in
        guard let descriptor = current else { return false }
        current = nil
        defer { Posix.close(descriptor) }
        try body(descriptor)
        return true
      }
    }

    /// Removes it; does nothing once it is closed.
    func discard() { _ = close { _ in remove() } }

    /// Removes it. A folder is renamed first: threads that still write into it can't add to it any more.
    func remove() {
      switch kind {
      case .file: try? Posix.unlink(path)
      case .folder:
        let doomed = name.temporaryPath()
        removeTree(at: (try? Posix.rename(path, to: doomed)) != nil ? doomed : path)
      }
    }

    /// Creates and locks a file or folder under a temporary name.
    private static func create(
      for name: OutputName, _ kind: Kind
    ) throws(FileError) -> (path: String, descriptor: CInt) {
      for _ in 0..<100 {
        let path = name.temporaryPath()
        let descriptor: CInt
        do {
          switch kind {
          case .file: descriptor = try Posix.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
          case .folder:
            try Posix.makeFolder(path)
            // Another process may have taken it for litter already.
            guard let opened = try? Posix.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else { continue }
            descriptor = opened
          }
        } catch {
          switch error.code {
          case EEXIST: continue
          case ENOENT:
            // The folder was there a moment ago: that of a file system like /proc, which takes nothing.
            throw FileError.io(
              file: name.path, operation: "create it",
              reason: "the folder '\(escaped(name.parent))' does not accept new files; choose another output")
          default: throw FileError.system(name.path, "create it", error)
          }
        }
        // The same may happen before it is locked, so whoever has the lock looks whether it is still there.
        // A file system without locks, as some of a cluster are, leaves what killed processes left behind.
        if Posix.tryLock(descriptor) ?? true, isStill(descriptor, at: path) { return (path, descriptor) }
        Posix.close(descriptor)
      }
      throw FileError.io(file: name.path, operation: "create it", reason: "no temporary name beside it is free")
    }

    /// Whether a path still leads to what is open.
    static func isStill(_ descriptor: CInt, at path: String) -> Bool {
      guard let opened = try? FileStatus(of: descriptor, path: path),
        let found = try? FileStatus(at: path, followingLinks: false)
      else { return false }
      return opened.isSame(as: found)
    }
  }
}
