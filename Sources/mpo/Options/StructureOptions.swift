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
  var structure: MatrixStructure?

  @Option(
    help: ArgumentHelp(
      "The bases that chains are computed in: auto (with --calibration, one for all that reads the residual stream and "
        + "one for all that is written to it, neurons elsewhere in the order of what they weigh) or none; or, where names do not "
        + "say it, the space that sides of matrices belong to, as 'blocks.*.mix.weight=inputs:stream': stream, own (shares "
        + "nothing) or a name of yours, which sides of one size share a basis by; without inputs: or outputs: both sides, "
        + "where the basis pays; repeatable. Default: auto.", valueName: "b|glob=[side:]space"))
  var basis: [BasisOption] = []

  func validate() throws {
    guard basis.count(where: { $0.choice != nil }) <= 1 else {
      throw ValidationError("--basis auto and --basis none go to all chains: give it once.")
    }
  }

  var given: [String] { [structure.map { _ in "structure" }, basis.isEmpty ? nil : "basis"].compactMap(\.self) }

  func write(to recipe: inout ConversionRecipe) {
    if let structure { recipe.structure = structure }
    if let choice = basis.compactMap(\.choice).first { recipe.basis = choice }
    recipe.spaces = basis.compactMap(\.rule)
  }
}

extension MatrixStructure: ExpressibleByArgument {}
