import Files
import Glibc

/// The terminal that results are read on.
enum Terminal {
  /// Whether results go to one.
  static let isOutput = isatty(STDOUT_FILENO) == 1

  /// Columns and lines of the terminal behind a descriptor; nil where there is none.
  static func size(of descriptor: Int32 = STDOUT_FILENO) -> (columns: Int, lines: Int)? {
    guard isatty(descriptor) == 1 else { return nil }
    var size = winsize()
    let isKnown = ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
    return (
      variable("COLUMNS") ?? (isKnown ? Int(size.ws_col) : 80), isKnown ? Int(size.ws_row) : 24
    )
  }

  private static func variable(_ name: String) -> Int? {
    getenv(name).flatMap { Int(String(cString: $0)) }.flatMap { $0 > 0 ? $0 : nil }
  }

  /// Whether to colour results: on a terminal that can, unless NO_COLOR says not to (https://no-color.org).
  static let usesColour: Bool = {
    func text(_ name: String) -> String { getenv(name).map { String(cString: $0) } ?? "" }
    return isOutput && text("NO_COLOR").isEmpty && text("TERM") != "dumb"
  }()

  /// A colour that text can have.
  enum Colour: Int {
    case bold = 1
    case faint = 2
    case red = 31
    case green = 32
    case yellow = 33
  }

  static func coloured(_ text: String, _ colour: Colour?) -> String {
    guard usesColour, let colour, !text.isEmpty else { return text }
    return "\u{1b}[\(colour.rawValue)m\(text)\u{1b}[0m"
  }

  /// Writes a result: what is longer than the terminal through the pager of the user, `less` where he has named none.
  static func show(_ text: String, pages: Bool) throws {
    guard pages, let size = size(),
      text.split(separator: "\n", omittingEmptySubsequences: false).count > size.lines,
      try page(text)
    else { return try StandardOutput.write(text) }
  }

  /// - Returns: whether a pager has shown it.
  private static func page(_ text: String) throws -> Bool {
    let pager = getenv("PAGER").map { String(cString: $0) } ?? "less"
    guard !pager.isEmpty, let ends = try? Posix.pipe() else { return false }
    // Colours as they are, the screen left as it is at the end; what the user has set counts more.
    let variables = getenv("LESS") == nil ? ["LESS": "FRX"] : [:]
    let child: ChildProcess
    do {
      child = try ChildProcess(
        "/bin/sh", ["-c", pager], variables: variables, input: .descriptor(ends.readEnd),
        output: .descriptor(STDOUT_FILENO), errors: .descriptor(STDERR_FILENO))
    } catch {
      Posix.close(ends.readEnd)
      Posix.close(ends.writeEnd)
      return false
    }
    Posix.close(ends.readEnd)
    // Ctrl-C is the pager's as long as it runs.
    let before = signal(SIGINT, SIG_IGN)
    defer { signal(SIGINT, before) }
    // Who leaves the pager early has seen enough.
    Array(text.utf8).withUnsafeBytes { try? Posix.write($0, to: ends.writeEnd) }
    Posix.close(ends.writeEnd)
    // A shell that has no such program says 127.
    return (try? child.ending(waiting: true)) != .exited(status: 127)
  }
}
