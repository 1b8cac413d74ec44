import Files

/// What can be wrong with a dense checkpoint. Every message names the file, the tensor where there is one, and what
/// to do. (What can be wrong with a file as such is a `FileError`.)
public enum CheckpointError: Error, Sendable, Equatable {
  /// A path holds nothing that can be read as a checkpoint.
  case notACheckpoint(path: String, reason: String)
  /// A file breaks the rules of its format.
  case malformed(file: String, tensor: String?, reason: String)
  /// A file is well-formed but uses something that is refused or not supported.
  case unsupported(file: String, tensor: String?, reason: String)
}

extension CheckpointError: CustomStringConvertible {
  /// One line; control characters of file and tensor names are escaped.
  public var description: String {
    switch self {
    case .notACheckpoint(let file, let reason): "\(path(file)): \(reason)"
    case .malformed(let file, let tensor?, let reason): "\(path(file)): tensor '\(escaped(tensor))': \(reason)"
    case .malformed(let file, nil, let reason): "\(path(file)): \(reason)"
    case .unsupported(let file, let tensor?, let reason): "\(path(file)): tensor '\(escaped(tensor))': \(reason)"
    case .unsupported(let file, nil, let reason): "\(path(file)): \(reason)"
    }
  }

  private func path(_ file: String) -> String { escaped(file, limit: 4096) }
}
