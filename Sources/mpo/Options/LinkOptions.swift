import ArgumentParser
import Recipes

/// Which matrices may share a core.
struct LinkOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "Store matrices whose names differ only in the braces, as 'layers.*.{q,k}_proj.weight', as ranges of one low-rank "
        + "operator where that has less error than separate ones. They share the core of their inputs, or that of their outputs with "
        + "=outputs behind the glob and where only the outputs have one size. Repeatable; with --structure auto or svd.",
      valueName: "glob[=inputs|outputs]"))
  var link: [String] = []

  @Option(
    help: ArgumentHelp(
      "The same for N neighbouring layers; the first star of the glob stands for the number of the layer: "
        + "'layers.*.up_proj.weight=2'. Repeatable.", valueName: "glob=n"))
  var linkLayers: [String] = []

  @Option(
    help: ArgumentHelp(
      "Turn the matrices that this glob matches, all of one shape, into chains of full bonds with auxiliary cores of their own and one "
        + "shared central core, or K of them, each for a run of layers. The other matrices meet the budget. Repeatable.",
      valueName: "glob[=k]"))
  var shareCentral: [String] = []

  @Option(
    help: ArgumentHelp(
      "With --share-central: add to each matrix an operator of this rank for what the shared core does not represent, the best one in "
        + "the metric where there is one.", valueName: "r"))
  var residualRank: Int?

  func validate() throws {
    _ = try (rules(), centres())
    guard let residualRank else { return }
    guard residualRank >= 1 else { throw ValidationError("--residual-rank must be at least 1, not \(residualRank).") }
    if shareCentral.isEmpty { throw ValidationError("--residual-rank goes with --share-central.") }
  }

  private func centres() throws -> [SharedCentreRule] {
    try shareCentral.map { text in
      guard let (glob, value) = Self.split(text) else {
        return SharedCentreRule(glob: text, residualRank: residualRank)
      }
      guard let centres = Int(value), centres >= 1 else {
        throw ValidationError("--share-central '\(text)': '\(value)' is not a number of central cores.")
      }
      return SharedCentreRule(glob: glob, centres: centres, residualRank: residualRank)
    }
  }

  private func rules() throws -> [LinkRule] {
    try link.map { text in
      guard let (glob, value) = Self.split(text) else { return LinkRule(glob: text) }
      guard let side = LinkRule.Side(rawValue: value) else {
        throw ValidationError("--link '\(text)': '\(value)' is neither inputs nor outputs.")
      }
      return LinkRule(glob: glob, shares: side)
    }
      + linkLayers.map { text in
        guard let (glob, value) = Self.split(text), let layers = Int(value), layers >= 2 else {
          throw ValidationError(
            "--link-layers '\(text)': give it as GLOB=N, N at least 2 neighbouring layers, as 'layers.*.up_proj.weight=2'."
          )
        }
        return LinkRule(glob: glob, layers: layers)
      }
  }

  private static func split(_ text: String) -> (glob: String, value: String)? {
    text.lastIndex(of: "=").map { (String(text[..<$0]), String(text[text.index(after: $0)...])) }
  }

  var given: [String] {
    (link.isEmpty && linkLayers.isEmpty ? [] : ["links"]) + (shareCentral.isEmpty ? [] : ["shared_centres"])
  }

  func write(to recipe: inout ConversionRecipe) throws {
    let rules = try rules()
    if !rules.isEmpty { recipe.links = rules }
    let centres = try centres()
    if !centres.isEmpty { recipe.sharedCentres = centres }
  }
}
