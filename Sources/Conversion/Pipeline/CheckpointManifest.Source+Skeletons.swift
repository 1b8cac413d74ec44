import Checkpoints
import MPOCheckpoints

extension CheckpointManifest.Source {
  /// What a manifest says of a checkpoint, its files excepted.
  ///
  /// - Parameter folder: of the MPO checkpoint, which gets the skeletons that its source is restored with.
  package init(of checkpoint: any DenseCheckpoint, writingSkeletonsTo folder: String) throws {
    let skeleton = checkpoint.skeletonName
    if let skeleton { try checkpoint.writeSkeleton(to: folder + "/" + skeleton) }
    self.init(
      format: checkpoint.format, files: [], metadata: checkpoint.metadata, skeleton: skeleton,
      components: try CheckpointManifest.Component.writeSkeletons(of: checkpoint, in: folder))
  }
}

extension CheckpointManifest.Component {
  /// The components of a model folder, whose skeletons are written where there are several of them.
  ///
  /// - Parameter folder: of the MPO checkpoint.
  /// - Returns: nil for a checkpoint that is no model folder.
  fileprivate static func writeSkeletons(of checkpoint: any DenseCheckpoint, in folder: String) throws -> [Self]? {
    let components = checkpoint.components
    guard !components.isEmpty else { return nil }
    return try components.enumerated().map { number, component in
      var skeleton = component.checkpoint.skeletonName
      if components.count > 1, let name = skeleton {
        let numbered = "skeleton-\(number + 1)" + name.dropFirst("skeleton".count)
        try component.checkpoint.writeSkeleton(to: folder + "/" + numbered)
        skeleton = numbered
      }
      return Self(
        file: component.file, prefix: component.prefix, format: component.checkpoint.format,
        tensorCount: component.checkpoint.tensors.count, metadata: component.checkpoint.metadata, skeleton: skeleton)
    }
  }
}
