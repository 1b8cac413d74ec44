import Glibc

/// A file open for writing at any offset, from any thread.
final class OutputFile: Sendable {
  let path: String
  private let descriptor: CInt

  /// Creates the file at `path`, or empties the one that is there.
  ///
  /// - Parameter byteCount: Its size from the start; what is not written reads as zeros.
  init(path: String, byteCount: Int) throws {
    descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o666)
    self.path = path
    guard descriptor >= 0 else { throw CheckpointError.system(path, "create it", errno) }
    guard ftruncate(descriptor, off_t(byteCount)) == 0 else {
      throw CheckpointError.system(path, "make room in it", errno, needed: byteCount)
    }
  }

  deinit {
    if descriptor >= 0 { close(descriptor) }
  }

  /// Writes all of `bytes` at `offset`.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
    try writeAll(bytes, to: descriptor, at: offset) { CheckpointError.system(path, "write it", $0, needed: $1) }
  }

  /// Waits until everything is on the disk.
  func synchronize() throws {
    while fsync(descriptor) != 0 {
      let code = errno
      guard code == EINTR else { throw CheckpointError.system(path, "flush it", code) }
    }
  }
}

/// Writes all of `bytes` at `offset` of an open file.
///
/// - Parameter failure: The error for a code of the system, and how many bytes were left.
func writeAll(
  _ bytes: UnsafeRawBufferPointer, to descriptor: CInt, at offset: Int,
  orThrow failure: (_ code: CInt, _ rest: Int) -> CheckpointError
) throws {
  guard let base = bytes.baseAddress else { return }
  var done = 0
  while done < bytes.count {
    // Below the 2^31 bytes that Linux takes at once.
    let count = pwrite(descriptor, base + done, min(bytes.count - done, 1 << 30), off_t(offset + done))
    if count > 0 {
      done += count
    } else {
      let code = count == 0 ? ENOSPC : errno
      if code == EINTR { continue }
      throw failure(code, bytes.count - done)
    }
  }
}
