import Glibc

/// A file open for writing at any offset, from any thread.
package final class OutputFile: Sendable {
  package let path: String
  private let descriptor: CInt

  /// Creates the file at `path`, or empties the one that is there.
  ///
  /// - Parameter byteCount: Its size from the start; what is not written reads as zeros.
  package init(path: String, byteCount: Int) throws(FileError) {
    descriptor = try FileError.naming(path, "create it") { () throws(SystemError) in
      try Posix.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
    }
    self.path = path
    try FileError.naming(path, "make room in it") { [descriptor] () throws(SystemError) in
      try Posix.resize(descriptor, to: byteCount)
    }
  }

  deinit { Posix.close(descriptor) }

  /// Writes all of `bytes` at `offset`.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
    try FileError.naming(path, "write it") { () throws(SystemError) in
      try Posix.write(bytes, to: descriptor, at: offset)
    }
    Posix.beginFlush(descriptor, in: offset..<(offset + bytes.count))
  }

  /// Waits until everything is on the disk.
  package func synchronize() throws(FileError) {
    try FileError.naming(path, "flush it") { () throws(SystemError) in try Posix.synchronize(descriptor) }
  }
}

/// Writes a new file and waits until it is on the disk.
package func writeFile(_ bytes: UnsafeRawBufferPointer, to path: String) throws {
  let file = try OutputFile(path: path, byteCount: bytes.count)
  try file.write(bytes, at: 0)
  try file.synchronize()
}

/// Files up to this size are copied rather than given a second name.
private let largeFileByteCount = 64 << 20

/// Copies `name` (which may have folders in it) from one folder to another, where it must not be yet: a large file as a
/// hard link where both are on one file system.
package func copyCompanion(
  _ name: String, from source: String, to target: String, as newName: String? = nil
) throws {
  let newName = newName ?? name
  try makeFolders(for: newName, in: target)
  let file = try MappedFile(path: source + "/" + name)
  // A large file is not worth the room of a copy where the file system can name it twice.
  if file.byteCount > largeFileByteCount, let path = try? realPath(of: source + "/" + name),
    (try? Posix.link(path, as: target + "/" + newName)) != nil
  {
    return
  }
  try file.withBytes(in: 0..<file.byteCount) { try writeFile($0, to: target + "/" + newName) }
}

/// Gives a file a second name in another folder; copies it where the file system can't do that.
package func linkFile(_ path: String, as target: String) throws {
  if let real = try? realPath(of: path), (try? Posix.link(real, as: target)) != nil { return }
  let file = try MappedFile(path: path)
  try file.withBytes(in: 0..<file.byteCount) { try writeFile($0, to: target) }
}

/// Makes the folders around a file that is to be written, where they are not there yet.
///
/// - Parameter name: the path of the file in `folder`.
package func makeFolders(for name: String, in folder: String) throws {
  var folder = folder
  for part in pathComponents(of: name).dropLast() {
    folder += "/" + part
    do {
      try Posix.makeFolder(folder)
    } catch {
      if error.code != EEXIST { throw FileError.system(folder, "create it", error) }
    }
  }
}
