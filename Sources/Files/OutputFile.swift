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

/// Copies `name` (which may have folders in it) from one folder to another, where it must not be yet.
package func copyCompanion(_ name: String, from source: String, to target: String) throws {
  var folder = target
  for part in pathComponents(of: name).dropLast() {
    folder += "/" + part
    do {
      try Posix.makeFolder(folder)
    } catch {
      if error.code != EEXIST { throw FileError.system(folder, "create it", error) }
    }
  }
  let file = try MappedFile(path: source + "/" + name)
  try file.withBytes(in: 0..<file.byteCount) { try writeFile($0, to: target + "/" + name) }
}
