import MPOCheckpoints
import Recipes

/// The recipe that made a checkpoint.
/// - Throws: `ConversionError.stageFile` for a checkpoint that no conversion of a dense one has made.
public func recipe(of checkpoint: MPOCheckpoint) throws -> ConversionRecipe {
  guard let recipe = checkpoint.manifest.conversion else {
    throw ConversionError.stageFile(
      path: checkpoint.path, reason: "its manifest has no recipe, because no conversion made it")
  }
  return recipe
}
