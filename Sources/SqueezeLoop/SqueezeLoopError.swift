import Checkpoints
import Conversion
import Files

/// What can end a squeeze with the user's own evaluation before it is done.
public enum SqueezeLoopError: Error, Sendable, Equatable {
  /// Which of the user's commands.
  public enum Command: String, Sendable {
    /// The command that measures.
    case evaluate
    /// The command that trains.
    case finetune
  }
  /// A shell could not be started.
  case notStarted(reason: String)
  /// A command failed; `errors` is the end of what it wrote to its standard error.
  case commandFailed(Command, round: Int, reason: String, errors: String)
  /// What the fine-tune command left is not the checkpoint it was given, trained.
  case finetunedUnusable(round: Int, reason: String)
  /// The evaluate command changed or removed what it was given.
  case evaluatedChanged(round: Int, reason: String)
  /// The model to begin with does not meet the limit.
  case baselineOutsideLimit(score: Double, limit: Double)
  /// The journal can't be written, or can't be gone on with.
  case journal(path: String, reason: String)
  /// The model to begin with can't be squeezed.
  case input(path: String, reason: String)
  /// The folder beside the output can't be used.
  case workFolder(path: String, reason: String)
}

extension SqueezeLoopError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .notStarted(let reason): "can't start /bin/sh: \(reason)"
    case .commandFailed(let command, let round, let reason, _):
      "round \(round): the --\(command.rawValue) command \(reason)"
    case .finetunedUnusable(let round, let reason):
      "round \(round): the --finetune command left no usable checkpoint at $MPO_OUTPUT: \(reason)"
    case .evaluatedChanged(let round, let reason):
      "round \(round): the --evaluate command changed the checkpoint it was given (\(reason)); it must only read it"
    case .baselineOutsideLimit(let score, let limit):
      "the input scores \(score), which is already outside the limit \(limit); set another --min-score"
    case .journal(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    case .input(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    case .workFolder(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    }
  }
}
