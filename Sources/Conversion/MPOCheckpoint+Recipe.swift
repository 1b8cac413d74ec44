import Checkpoints
import FoundationEssentials
import MPOCheckpoints
import Recipes

/// The recipe that made a checkpoint.
/// - Throws: `MPOCheckpointError` for a checkpoint that no conversion of a dense one has made.
public func recipe(of checkpoint: MPOCheckpoint) throws -> ConversionRecipe {
  guard let text = checkpoint.manifest.options?["recipe"],
    let recipe = try? JSONDecoder().decode(ConversionRecipe.self, from: Data(text.utf8))
  else {
    throw ConversionError.stageFile(
      path: checkpoint.path, reason: "its manifest has no recipe; it was not made by a conversion")
  }
  return recipe
}

extension ConversionRecipe {
  /// What the manifest says of the conversion.
  var manifestOptions: [String: String] {
    get throws {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      return ["recipe": String(decoding: try encoder.encode(self), as: UTF8.self)]
    }
  }
}
