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
    guard ftruncate(temporary.descriptor, off_t(byteCount)) == 0 else {
      let code = errno
      close(temporary.descriptor)
      throw CheckpointError.system(folder, "make room for a temporary file in it", code, needed: byteCount)
    }
    self.folder = folder
    file = try MappedFile(adopting: temporary.descriptor, path: folder)
  }

  /// Writes all of `bytes` at `offset`, from any thread.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
    try writeAll(bytes, to: file.descriptor, at: offset) {
      CheckpointError.system(folder, "write a temporary file in it", $0, needed: $1)
    }
  }

  /// Calls `body` with bytes that were written.
  package func withBytes<Result>(
    in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try file.withBytes(in: range, body)
  }
}
