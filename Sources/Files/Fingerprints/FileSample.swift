import Crypto

/// What tells large files from others without reading them whole.
public enum FileSample {
  private static let blockCount = 64
  private static let blockBytes = 4096

  /// The SHA-256, in hexadecimal digits, of the names and sizes of files and of blocks that are spread evenly over each of them.
  /// - Throws: `FileError` for what is missing, no regular file, or can't be read.
  public static func digest(ofFilesAt paths: [String]) throws -> String {
    var hash = SHA256()
    for path in paths {
      let file = try MappedFile(path: path)
      hash.update(data: Array("\(pathComponents(of: path).last ?? path)\n\(file.byteCount)\n".utf8))
      let last = max(0, file.byteCount - blockBytes)
      for block in 0..<blockCount {
        let start = last / (blockCount - 1) * block
        try file.withBytes(in: start..<min(file.byteCount, start + blockBytes)) { hash.update(bufferPointer: $0) }
      }
    }
    return hexadecimal(hash.finalize())
  }
}
