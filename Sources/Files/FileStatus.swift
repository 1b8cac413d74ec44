import Glibc

/// What the system knows of a path: its kind, its size and its identity.
public struct FileStatus: Sendable, Hashable {
  /// What a path leads to; the raw value is how a message calls it.
  public enum Kind: String, Sendable {
    /// A regular file.
    case file = "a file"
    /// A folder.
    case folder = "a folder"
    /// A symbolic link, where links are not followed.
    case symbolicLink = "a symbolic link"
    /// A named pipe.
    case pipe = "a named pipe"
    /// A socket.
    case socket = "a socket"
    /// A character device, as a terminal.
    case characterDevice = "a character device"
    /// A block device, as a disk.
    case blockDevice = "a block device"
    /// Anything else.
    case other = "of an unknown kind"
  }

  /// What the path leads to.
  public let kind: Kind
  /// The size in bytes.
  public let byteCount: Int
  /// When the content was changed last, in nanoseconds since 1970, by the clock of the file system.
  public let modified: Int
  private let device: UInt64
  private let inode: UInt64

  private init(_ status: stat) {
    kind =
      switch status.st_mode & S_IFMT {
      case S_IFREG: .file
      case S_IFDIR: .folder
      case S_IFLNK: .symbolicLink
      case S_IFIFO: .pipe
      case S_IFSOCK: .socket
      case S_IFCHR: .characterDevice
      case S_IFBLK: .blockDevice
      default: .other
      }
    byteCount = Int(status.st_size)
    modified = status.st_mtim.tv_sec * 1_000_000_000 + status.st_mtim.tv_nsec
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
  }

  /// The status of what `path` leads to, or of the link itself; `nil` where there is nothing.
  /// - Throws: `FileError.io` where the system does not tell.
  public init?(at path: String, followingLinks: Bool = true) throws {
    do {
      self.init(try Posix.status(at: path, followingLinks: followingLinks))
    } catch {
      if error.code == ENOENT || error.code == ENOTDIR { return nil }
      throw FileError.system(path, "look it up", error)
    }
  }

  /// The status of an open file.
  ///
  /// - Parameter path: What messages call it.
  package init(of descriptor: CInt, path: String) throws {
    self.init(try FileError.naming(path, "look it up") { () throws(SystemError) in try Posix.status(of: descriptor) })
  }

  /// Whether both are the same file, whatever the paths they were found by.
  public func isSame(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }
}
