import Checkpoints
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
    let code = writeAll(bytes, to: STDOUT_FILENO)
    if code == EPIPE {
      AtomicOutput.discardAll()
      exit(128 + SIGPIPE)
    }
    guard code == 0 else {
      throw CheckpointError.io(file: "standard output", operation: "write it", reason: String(cString: strerror(code)))
    }
  }
}

/// Where everything else goes.
enum StandardError {
  static let isTerminal = isatty(STDERR_FILENO) == 1

  /// Nobody listening is no reason to stop working.
  static func write(_ text: String) { _ = writeAll(Array(text.utf8), to: STDERR_FILENO) }
}

/// The error number, 0 when everything was written.
private func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
  var rest = bytes[...]
  while !rest.isEmpty {
    let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    if count < 0 {
      if errno == EINTR { continue }
      return errno
    }
    rest = rest.dropFirst(count)
  }
  return 0
}

/// Everything of standard input.
func readStandardInput() throws -> [UInt8] {
  var result: [UInt8] = []
  var block = Array(repeating: UInt8(0), count: 1 << 16)
  while true {
    let count = read(STDIN_FILENO, &block, block.count)
    if count == 0 { return result }
    if count < 0 {
      if errno == EINTR { continue }
      throw CheckpointError.io(file: "standard input", operation: "read it", reason: String(cString: strerror(errno)))
    }
    result += block[..<count]
  }
}

/// Says what the user should know although the work goes on.
func warn(_ warning: String) { StandardError.write("mpo: warning: \(warning)\n") }
