import ArgumentParser
import Recipes
import Squeezing

/// What a matrix may become: decides what a profile holds.
struct StructureOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "What a matrix may become: mpo (a chain of --sites), svd (a factorisation of low rank, a chain of two) or auto "
        + "(for each matrix a chain, low rank or dense, whatever has the least error for its numbers over the whole "
        + "network; with --calibration low rank or dense). Default: mpo.", valueName: "s"))
  var structure: Structure?

  var given: [String] { structure.map { _ in ["structure"] } ?? [] }

  func write(to recipe: inout ConversionRecipe) { if let structure { recipe.structure = structure } }
}

extension Structure: ExpressibleByArgument {}
