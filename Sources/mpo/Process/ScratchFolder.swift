import Files
import Glibc

/// Where unnamed temporary files go.
enum ScratchFolder {
  /// `$TMPDIR`, where it names a folder that can be written to; clusters set it to a disk of the node. Else `folder`.
  static func path(besides folder: String) -> String {
    guard let path = getenv("TMPDIR").map({ String(cString: $0) }), !path.isEmpty, access(path, W_OK | X_OK) == 0,
      (try? FileStatus(at: path)?.kind) == .folder
    else { return folder }
    return path
  }
}
