/// Weights of a model folder: all of them, those of one component of a pipeline, or one shard of Keras weights.
public struct CheckpointComponent: Sendable {
  /// The file of the weights, or the index of their shards: a path in the model folder.
  public let file: String
  /// What stands before the names that its tensors have in `checkpoint`.
  public let prefix: String
  /// The weights, open for reading; its tensors have their own names.
  public let checkpoint: any DenseCheckpoint

  init(file: String, prefix: String = "", checkpoint: any DenseCheckpoint) {
    self.file = file
    self.prefix = prefix
    self.checkpoint = checkpoint
  }
}
