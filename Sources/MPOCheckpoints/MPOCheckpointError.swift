import Checkpoints
import Files

/// What can be wrong with an MPO checkpoint.
public enum MPOCheckpointError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The path does not hold one.
  case notAnMPOCheckpoint(path: String, reason: String)
  /// `manifest.json` can't be used.
  case manifest(path: String, reason: String)
  /// Manifest and tensors contradict each other.
  case tensor(path: String, tensor: String, reason: String)
  /// A file of the folder is not as the manifest says.
  case file(path: String, reason: String)

  public var description: String {
    switch self {
    case .notAnMPOCheckpoint(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    case .manifest(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    case .tensor(let path, let tensor, let reason):
      "\(escaped(path, limit: 4096)): tensor '\(escaped(tensor))': \(reason)"
    case .file(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    }
  }
}
