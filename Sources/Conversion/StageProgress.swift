import Synchronization

/// How far a stage is, in elements of tensors.
public struct StageProgress: Sendable, Equatable {
  /// A stage that can take long.
  public enum Stage: String, Sendable {
    /// Computing spectra.
    case profile
    /// Decomposing and writing.
    case convert
    /// Computing the correction of a compressed model.
    case adapt
    /// Joining the parts of a conversion.
    case merge
    /// Writing a dense checkpoint.
    case restore
    /// Comparing with the source.
    case verify
  }
  /// The stage that is at work.
  public let stage: Stage
  /// Elements that are done.
  public let completed: Int
  /// Elements of the whole stage.
  public let total: Int
  /// The tensor that was just finished.
  public let tensor: String
}

/// Called after every tensor, from any thread, one call at a time.
public typealias ProgressHandler = @Sendable (StageProgress) -> Void

/// Counts finished elements and passes them on.
final class ProgressCounter: Sendable {
  private let stage: StageProgress.Stage
  private let total: Int
  private let handler: ProgressHandler
  private let completed = Mutex(0)

  init(_ stage: StageProgress.Stage, total: Int, _ handler: @escaping ProgressHandler) {
    self.stage = stage
    self.total = total
    self.handler = handler
  }

  func finished(_ tensor: String, elements: Int) {
    completed.withLock { completed in
      completed += elements
      handler(StageProgress(stage: stage, completed: completed, total: total, tensor: tensor))
    }
  }
}
