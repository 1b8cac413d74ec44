import Glibc

/// The system's words for an error number, with a small first letter as they stand inside a sentence.
package func systemReason(_ code: CInt) -> String {
  var buffer = [CChar](repeating: 0, count: 256)
  guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
  let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  return text.prefix(1).lowercased() + text.dropFirst()
}

extension CheckpointError {
  /// The error for a system call on `file` that failed with `code`; `needed` is the number of bytes it was to write.
  package static func system(
    _ file: String, _ operation: String, _ code: CInt, needed: Int? = nil
  ) -> CheckpointError {
    let reason =
      switch code {
      case ENOSPC: "no space left on device: \(room(needed)) or choose another output"
      case EDQUOT: "disk quota exceeded: \(room(needed)) or choose another output"
      case EROFS: "the file system is read-only: choose another output"
      case EFBIG: "the file is larger than the file system or the limit on file sizes (ulimit -f) allows"
      default: systemReason(code)
      }
    return .io(file: file, operation: operation, reason: reason)
  }

  private static func room(_ needed: Int?) -> String {
    needed.map { "free \($0) bytes" } ?? "free some"
  }
}
