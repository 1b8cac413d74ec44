import Glibc

/// A file that is gone when its descriptor is closed, once its name has been taken away.
package struct TemporaryFile {
  /// Open for reading and writing.
  package let descriptor: CInt
  private let path: String

  /// Creates one.
  ///
  /// - Parameter folder: Where it takes its room; the system's folder for large temporary files when `nil`, or what
  ///   `TMPDIR` says.
  package init(in folder: String? = nil) throws {
    let folders =
      folder.map { [$0] } ?? [getenv("TMPDIR").map { String(cString: $0) }, "/var/tmp", "/tmp"].compactMap(\.self)
    var failure = SystemError(ENOENT)
    for folder in folders where !folder.isEmpty {
      do {
        (descriptor, path) = try Posix.temporaryFile(prefix: folder + "/.mpo.")
        return
      } catch {
        failure = error
      }
    }
    throw FileError.system(folders.last ?? "/tmp", "create a temporary file in it", failure)
  }

  /// Takes the name away, when `body` has opened the file by it (libhdf5 takes no descriptors) or has failed.
  package func withPath<Result>(_ body: (String) throws -> Result) rethrows -> Result {
    defer { try? Posix.unlink(path) }
    return try body(path)
  }
}
