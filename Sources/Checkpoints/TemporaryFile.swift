import Glibc

/// A file that is gone when its descriptor is closed, once its name has been taken away.
struct TemporaryFile {
  /// Open for reading and writing.
  let descriptor: CInt
  private let path: String

  /// Creates one.
  ///
  /// - Parameter folder: Where it takes its room; the system's folder for large temporary files when `nil`, or what
  ///   `TMPDIR` says.
  init(in folder: String? = nil) throws {
    let folders =
      folder.map { [$0] } ?? [getenv("TMPDIR").map { String(cString: $0) }, "/var/tmp", "/tmp"].compactMap(\.self)
    var code = ENOENT
    for folder in folders where !folder.isEmpty {
      var template = Array((folder + "/.mpo.XXXXXX").utf8CString)
      let descriptor = mkstemp(&template)
      guard descriptor >= 0 else {
        code = errno
        continue
      }
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
      self.descriptor = descriptor
      path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
      return
    }
    throw CheckpointError.system(folders.last ?? "/tmp", "create a temporary file in it", code)
  }

  /// Takes the name away, when `body` has opened the file by it (libhdf5 takes no descriptors) or has failed.
  func withPath<Result>(_ body: (String) throws -> Result) rethrows -> Result {
    defer { unlink(path) }
    return try body(path)
  }
}
