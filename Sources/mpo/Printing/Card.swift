import Files
import MPOCheckpoints
import Reports

/// The README.md of an MPO checkpoint.
enum Card {
  /// Writes the card into the folder of a checkpoint that is being made: beside the card of the source, where that has one.
  /// It is no part of the checkpoint: the manifest does not list it, and it is not restored.
  static func write(_ manifest: CheckpointManifest, to folder: String) throws {
    let card = ModelCard(
      manifest, source: try source(in: folder),
      command: manifest.conversion.flatMap(RecipeCommand.text),
      loading: LoadingText.steps(of: manifest, at: "OUT.mpo"))
    let name = ["README.md", "README.mpo.md"].first {
      (try? FileStatus(at: folder + "/" + $0)) == .some(nil)
    }
    guard let name else { return }
    let text = Array(card.text.utf8)
    try text.withUnsafeBytes { try writeFile($0, to: folder + "/" + name) }
  }

  /// The card of the source; nil where there is none, or none that is a text of sensible size.
  private static func source(in folder: String) throws -> String? {
    let path = folder + "/README.md"
    guard try FileStatus(at: path)?.kind == .file, let file = try? MappedFile(path: path),
      file.byteCount <= 1 << 20
    else { return nil }
    return try file.withBytes(in: 0..<file.byteCount) { String(decoding: $0, as: UTF8.self) }
  }
}
