import Checkpoints
import Files
import FoundationEssentials
import Glibc

/// Where results go.
enum StandardOutput {
  /// Writes everything; a reader that has gone ends the process quietly, as SIGPIPE would.
  static func write(_ text: String) throws { try write(Array(text.utf8)) }

  /// Writes one JSON value and a newline, members in alphabetical order.
  static func writeJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try write(printableJSON(String(decoding: encoder.encode(value), as: UTF8.self)) + "\n")
  }

  static func write(_ bytes: [UInt8]) throws {
    do {
      try bytes.withUnsafeBytes { try Posix.write($0, to: STDOUT_FILENO) }
    } catch let error as SystemError {
      if error.code == EPIPE {
        AtomicOutput.discardAll()
        exit(128 + SIGPIPE)
      }
      throw FileError.io(file: "standard output", operation: "write it", reason: SystemError.reason(error.code))
    }
  }
}

/// Where everything else goes.
enum StandardError {
  static let isTerminal = isatty(STDERR_FILENO) == 1

  /// Nobody listening is no reason to stop working.
  static func write(_ text: String) {
    Array(text.utf8).withUnsafeBytes { try? Posix.write($0, to: STDERR_FILENO) }
  }
}

/// Everything of standard input.
func readStandardInput() throws -> [UInt8] {
  var result: [UInt8] = []
  let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
  defer { block.deallocate() }
  while true {
    let count = try FileError.naming("standard input", "read it") { () throws(SystemError) in
      try Posix.read(STDIN_FILENO, into: block)
    }
    if count == 0 { return result }
    result += block[..<count]
  }
}

/// Says what the user should know although the work goes on.
func warn(_ warning: String) { StandardError.write("mpo: warning: \(warning)\n") }
