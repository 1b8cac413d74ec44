import Files

/// A file beside the weights, and where an MPO checkpoint keeps it.
public struct Companion: Sendable, Hashable {
  /// Its path in the folder it is taken from.
  public let path: String
  /// Its path in the MPO checkpoint: its own, or one in the folder `companions` where a file of the checkpoint itself could
  /// have its own.
  public let storedPath: String

  private static let folder = "companions"

  /// A file of a model folder.
  public init(ofModel path: String) {
    self.path = path
    let first = pathComponents(of: path).first ?? path
    let isReserved =
      [CheckpointManifest.fileName, RemoteCode.fileName, Self.folder].contains(first)
      || ["tensors", "skeleton"].contains { first == $0 || first.hasPrefix($0 + ".") || first.hasPrefix($0 + "-") }
    storedPath = isReserved ? Self.folder + "/" + path : path
  }

  /// A file of another MPO checkpoint, which stays where it is.
  public init(stored path: String) {
    self.path = path
    storedPath = path
  }

  /// The path in the model folder of a companion that is stored at `storedPath`.
  public static func modelPath(ofStored storedPath: String) -> String {
    let prefix = folder + "/"
    return storedPath.utf8.starts(with: prefix.utf8)
      ? String(decoding: storedPath.utf8.dropFirst(prefix.utf8.count), as: UTF8.self) : storedPath
  }
}
