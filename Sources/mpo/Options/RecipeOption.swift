import ArgumentParser
import Conversion
import Recipes

/// The names that the members of a recipe have on the command line.
enum RecipeOption {
  private static let names = [
    "selection.include": "--include", "selection.exclude": "--exclude", "selection.convolutions": "--convolutions",
    "selection.sites": "--sites", "selection.shapes": "--shape", "ties": "--tie", "links": "--link",
    "shared_centres": "--share-central",
    "budget.ratio": "--ratio",
    "budget.matrix_ratio": "--matrix-ratio", "selection.experts": "--experts",
    "budget.max_error": "--max-error", "budget.bond": "--bond", "budget.lossless": "--lossless",
    "structure": "--structure", "depth": "--sites", "criterion": "--criterion", "minimum_bond": "--min-bond",
    "alignment": "--align",
    "gauge": "--gauge",
    "metric": "--calibration", "metric.statistics_sha256": "--calibration, SHA-256",
    "metric.input_ridge": "--input-ridge", "metric.output_ridge": "--output-ridge", "dtype": "--dtype",
    "mask": "--mask", "mask.weights": "--mask-weights", "mask.source": "--mask, SHA-256",
    "central": "--central", "encodings": "--encode", "budget.bytes": "--bytes",
    "budget.matrix_bytes": "--matrix-bytes", "basis": "--basis", "spaces": "--basis", "pack": "--pack",
  ]

  static func name(of member: String) -> String { names[member] ?? member }
}

/// Options that write members of a recipe.
protocol RecipeOptions {
  /// The members that were given, in the order of the help.
  var given: [String] { get }

  /// Writes what was given.
  func write(to recipe: inout ConversionRecipe) throws
}

extension [any RecipeOptions] {
  var given: [String] { flatMap(\.given) }

  func write(to recipe: inout ConversionRecipe) throws {
    for group in self { try group.write(to: &recipe) }
    // Of factors of low rank, `--sites` is the depth.
    if recipe.structure == .svd, given.contains("selection.sites") {
      recipe.depth = recipe.selection.sites
      recipe.selection.sites = TensorSelection().sites
    }
  }

  /// The recipe that the options write.
  func recipe(
    _ calibration: CalibrationOptions, _ statistics: CalibrationStatistics?, _ mask: MaskFile?
  ) throws -> ConversionRecipe {
    var recipe = ConversionRecipe()
    try write(to: &recipe)
    recipe.chooseStructure(given: Set(given))
    recipe.metric = try calibration.identity(of: statistics)
    if let mask { recipe.mask?.source = .file(sha256: try mask.sha256) }
    return recipe
  }

  /// - Parameter hasMetric: nil where that is not known yet.
  /// - Throws: `ValidationError` for options that have no effect beside others.
  func check(metric hasMetric: Bool? = nil) throws {
    var recipe = ConversionRecipe()
    // What can't be read is an error when the command runs.
    guard (try? write(to: &recipe)) != nil else { return }
    recipe.chooseStructure(given: Set(given))
    if hasMetric == true { recipe.metric = StatisticsIdentity(sha256: "") }
    guard let conflict = recipe.conflict(given: Set(given)) else { return }
    if case .noEffectWithout = conflict, hasMetric == nil { return }
    throw conflict.validationError
  }
}
