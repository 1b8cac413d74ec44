import ArgumentParser
import Checkpoints
import Synchronization

/// How dense checkpoints are opened.
struct SourceOptions: ParsableArguments {
  @Flag(
    help:
      "Follow links that lead out of a model folder. Default: follow only links into the blobs of a Hugging Face cache."
  )
  var followLinks = false

  /// Whether the running command has these options, so that a message may name them.
  static let isOffered = Mutex(false)

  /// Whether links may lead anywhere.
  var followsLinks: Bool {
    Self.isOffered.withLock { $0 = true }
    return followLinks
  }

  func open(_ path: String) throws -> any DenseCheckpoint {
    try openDenseCheckpoint(at: path, followingLinks: followsLinks)
  }
}
