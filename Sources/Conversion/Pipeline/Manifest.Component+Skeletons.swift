import Checkpoints
import MPOCheckpoints

extension Manifest.Component {
  /// The components of a model folder, whose skeletons are written where there are several of them.
  ///
  /// - Parameter folder: of the MPO checkpoint.
  /// - Returns: nil for a checkpoint that is no model folder.
  package static func writeSkeletons(of checkpoint: any DenseCheckpoint, in folder: String?) throws -> [Self]? {
    let components = checkpoint.components
    guard !components.isEmpty else { return nil }
    return try components.enumerated().map { number, component in
      var skeleton = folder == nil ? nil : component.checkpoint.skeletonName
      if components.count > 1, let name = skeleton, let folder {
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
