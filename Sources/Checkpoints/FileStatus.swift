import Glibc

/// What the system knows of a path: its kind, its size and its identity.
package struct FileStatus: Sendable, Hashable {
  package enum Kind: String, Sendable {
    case file = "a file"
    case folder = "a folder"
    case symbolicLink = "a symbolic link"
    case pipe = "a named pipe"
    case socket = "a socket"
    case characterDevice = "a character device"
    case blockDevice = "a block device"
    case other = "of an unknown kind"
  }

  package let kind: Kind
  package let byteCount: Int
  let device: UInt64
  let inode: UInt64
  let linkCount: UInt64

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
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    linkCount = UInt64(status.st_nlink)
  }

  /// The status of what `path` leads to, or of the link itself; `nil` where there is nothing.
  package init?(at path: String, followingLinks: Bool = true) throws {
    var status = stat()
    let result = followingLinks ? stat(path, &status) : lstat(path, &status)
    if result != 0 {
      let code = errno
      if code == ENOENT || code == ENOTDIR { return nil }
      throw CheckpointError.system(path, "look it up", code)
    }
    self.init(status)
  }

  /// The status of an open file.
  init(of descriptor: CInt, path: String) throws {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw CheckpointError.system(path, "look it up", errno) }
    self.init(status)
  }

  /// Whether both are the same file, whatever the paths they were found by.
  package func isSame(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }
}
