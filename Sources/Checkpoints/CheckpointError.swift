/// What can be wrong with a dense checkpoint. Every message names the file, the tensor where there is one, and what
/// to do.
public enum CheckpointError: Error, Sendable, Equatable {
  /// A file could not be opened, read or written; `reason` is the system's own words.
  case io(file: String, operation: String, reason: String)
  /// A path holds nothing that can be read as a checkpoint.
  case notACheckpoint(path: String, reason: String)
  /// A file breaks the rules of its format.
  case malformed(file: String, tensor: String?, reason: String)
  /// A file is well-formed but uses something that is refused or not supported.
  case unsupported(file: String, tensor: String?, reason: String)
  /// The output is there already and `--force` was not given.
  case outputExists(path: String)
  /// The output is there already and is nothing that this tool would have written, so it is not replaced.
  case outputNotReplaceable(path: String, reason: String)
}

extension CheckpointError: CustomStringConvertible {
  /// One line; control characters of file and tensor names are escaped.
  public var description: String {
    switch self {
    case .io(let file, let operation, let reason): "\(path(file)): cannot \(operation): \(reason)"
    case .notACheckpoint(let file, let reason): "\(path(file)): \(reason)"
    case .malformed(let file, let tensor?, let reason): "\(path(file)): tensor '\(escaped(tensor))': \(reason)"
    case .malformed(let file, nil, let reason): "\(path(file)): \(reason)"
    case .unsupported(let file, let tensor?, let reason): "\(path(file)): tensor '\(escaped(tensor))': \(reason)"
    case .unsupported(let file, nil, let reason): "\(path(file)): \(reason)"
    case .outputExists(let file): "\(path(file)): exists already; choose another output or pass --force to replace it"
    case .outputNotReplaceable(let file, let reason): "\(path(file)): not replaced, even with --force: \(reason)"
    }
  }

  private func path(_ file: String) -> String { escaped(file, limit: 4096) }
}
