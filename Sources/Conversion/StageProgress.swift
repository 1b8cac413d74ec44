import Synchronization

/// How far a stage is, in elements of tensors.
public struct StageProgress: Sendable, Equatable {
  public enum Stage: String, Sendable { case profile, convert, adapt, merge, restore, verify }
  public let stage: Stage
  public let completed: Int
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
