import ArgumentParser
import Recipes
import Squeezing

/// What a matrix may become: decides what a profile holds.
struct StructureOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "What a matrix may become: auto (for each matrix a chain, low rank or dense, whatever has the least error for its "
        + "numbers over the whole network; with --calibration or --mask low rank or dense), chain (of --sites) or svd (a "
        + "factorisation of low rank, a chain of two). Default: auto; chain with --sites, --shape, --bond and "
        + "--criterion error.", valueName: "s"))
  var structure: Structure?

  @Option(
    help: ArgumentHelp(
      "The bases that chains are computed in: auto (with --calibration, one for all that reads the residual stream and "
        + "one for all that is written to it, neurons elsewhere in the order of what they weigh) or none. Default: auto.",
      valueName: "b"))
  var basis: BasisChoice?

  var given: [String] { [structure.map { _ in "structure" }, basis.map { _ in "basis" }].compactMap(\.self) }

  func write(to recipe: inout ConversionRecipe) {
    if let structure { recipe.structure = structure }
    if let basis { recipe.basis = basis }
  }
}

extension BasisChoice: ExpressibleByArgument {}
extension Structure: ExpressibleByArgument {}
