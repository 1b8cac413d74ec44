import ArgumentParser
import Recipes
import Squeezing

/// What a matrix may become: decides what a profile holds.
struct StructureOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "What a matrix may become: auto (for each matrix a chain, low rank or dense, whatever has the least error for its "
        + "numbers over the whole network; with --calibration low rank or dense), chain (of --sites) or svd (a "
        + "factorisation of low rank, a chain of two). Default: auto; chain with --sites, --shape, --bond and "
        + "--criterion error.", valueName: "s"))
  var structure: Structure?

  var given: [String] { structure.map { _ in ["structure"] } ?? [] }

  func write(to recipe: inout ConversionRecipe) { if let structure { recipe.structure = structure } }
}

extension Structure: ExpressibleByArgument {}
