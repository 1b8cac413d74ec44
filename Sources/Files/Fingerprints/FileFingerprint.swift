import Crypto
import Glibc

/// What identifies the content of a file: its size and its SHA-256.
public struct FileFingerprint: Sendable, Hashable, Codable {
  /// The file's name, without the folder unless one was asked for.
  public let file: String
  /// The file's size.
  public let bytes: Int
  /// The SHA-256 of its content, 64 lower-case hexadecimal digits.
  public let sha256: String

  /// A fingerprint that is known already, as of a manifest.
  public init(file: String, bytes: Int, sha256: String) {
    self.file = file
    self.bytes = bytes
    self.sha256 = sha256
  }

  enum CodingKeys: String, CodingKey {
    case file = "name"
    case bytes, sha256
  }

  /// Reads the regular file at `path` once, 1 MB at a time.
  ///
  /// - Parameters:
  ///   - path: The file to read.
  ///   - name: The name to record; the last component of the path by default.
  /// - Throws: `FileError` for what is missing, no regular file, or can't be read.
  public init(ofFileAt path: String, named name: String? = nil) throws {
    guard let status = try FileStatus(at: path) else { throw FileError.missing(path: path) }
    guard status.kind == .file else { throw FileError.notRegular(path: path, kind: status.kind) }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    defer { buffer.deallocate() }
    var hash = SHA256()
    var bytes = 0
    let descriptor = try FileError.naming(path, "open it") { () throws(SystemError) in
      try Posix.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
    }
    defer { Posix.close(descriptor) }
    while true {
      let count = try FileError.naming(path, "read it") { () throws(SystemError) in
        try Posix.read(descriptor, into: buffer)
      }
      if count == 0 { break }
      hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      bytes += count
    }
    self.init(
      file: name ?? path.split(separator: "/").last.map(String.init) ?? path, bytes: bytes,
      sha256: hexadecimal(hash.finalize()))
  }
}
