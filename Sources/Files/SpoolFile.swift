import Glibc

/// A file without a name, for what has to be on the disk before its place in the output is known.
///
/// It is gone when the last reference is, and when the process ends, however it ends. What is not written takes no room.
package final class SpoolFile: Sendable {
  private let folder: String
  private let file: MappedFile

  /// - Parameters:
  ///   - folder: Where it takes its room.
  ///   - byteCount: Its size.
  package init(in folder: String, byteCount: Int) throws {
    let temporary = try TemporaryFile(in: folder)
    temporary.withPath { _ in }
    do {
      try Posix.resize(temporary.descriptor, to: byteCount)
    } catch {
      Posix.close(temporary.descriptor)
      throw FileError.system(folder, "make room for a temporary file in it", error)
    }
    self.folder = folder
    file = try MappedFile(adopting: temporary.descriptor, path: folder)
  }

  /// Writes all of `bytes` at `offset`, from any thread.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
    try FileError.naming(folder, "write a temporary file in it") { () throws(SystemError) in
      try Posix.write(bytes, to: file.descriptor, at: offset)
    }
  }

  /// Calls `body` with bytes that were written.
  package func withBytes<Result>(
    in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try file.withBytes(in: range, body)
  }
}
