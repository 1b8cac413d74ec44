import Glibc

/// What can go wrong with a file or a folder. Every message names it and says what to do.
public enum FileError: Error, Sendable, Equatable {
  /// A system call failed; `reason` is the system's own words.
  case io(file: String, operation: String, reason: String)
  /// Nothing is at the path.
  case missing(path: String)
  /// Something else than a regular file is at the path.
  case notRegular(path: String, kind: FileStatus.Kind)
  /// A range of bytes was asked for that the file does not have.
  case rangeOutside(file: String, range: Range<Int>, byteCount: Int)
  /// The output is there already and was not to be replaced.
  case outputExists(path: String)
  /// The output is there already and is not replaced whatever was asked for.
  case outputNotReplaceable(path: String, reason: String)
}

extension FileError: CustomStringConvertible {
  /// One line; control characters of names are escaped.
  public var description: String {
    switch self {
    case .io(let file, let operation, let reason): "\(path(file)): cannot \(operation): \(reason)"
    case .missing(let file): "\(path(file)): no such file or folder"
    case .notRegular(let file, let kind): "\(path(file)): is \(kind.rawValue), not a regular file"
    case .rangeOutside(let file, let range, let byteCount):
      "\(path(file)): bytes \(range.lowerBound)..<\(range.upperBound) lie outside the file of \(byteCount) bytes"
    case .outputExists(let file): "\(path(file)): exists already; choose another output"
    case .outputNotReplaceable(let file, let reason): "\(path(file)): can't be replaced: \(reason)"
    }
  }

  private func path(_ file: String) -> String { escaped(file, limit: 4096) }
}

extension FileError {
  /// The error for a system call on `file` that failed with `code`; `needed` is the number of bytes it was to write.
  package static func system(_ file: String, _ operation: String, _ code: CInt, needed: Int? = nil) -> FileError {
    let room = needed.map { "free \($0) bytes" } ?? "free some"
    let reason =
      switch code {
      case ENOSPC: "no space left on device: \(room) or choose another output"
      case EDQUOT: "disk quota exceeded: \(room) or choose another output"
      case EROFS: "the file system is read-only: choose another output"
      case EFBIG: "the file is larger than the file system or the limit on file sizes (ulimit -f) allows"
      default: SystemError.reason(code)
      }
    return .io(file: file, operation: operation, reason: reason)
  }

  package static func system(_ file: String, _ operation: String, _ error: SystemError) -> FileError {
    system(file, operation, error.code, needed: error.unwritten)
  }

  /// Makes system calls, whose errors get the name of the file and of what was done.
  package static func naming<Result>(
    _ file: String, _ operation: String, _ calls: () throws(SystemError) -> Result
  ) throws(FileError) -> Result {
    do {
      return try calls()
    } catch {
      throw system(file, operation, error)
    }
  }
}
