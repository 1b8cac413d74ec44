import ArgumentParser
import Recipes
import Squeezing

/// What a matrix may become: decides what a profile holds.
struct StructureOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "What a matrix may become. auto: a chain, low-rank factors or dense, whichever has the least error for its numbers, chosen "
        + "over the whole network; with --calibration or --mask low-rank factors or dense. chain: a chain of --sites cores. svd: "
        + "low-rank factors, which are a chain of two. Default: auto; with --sites, --shape, --bond or --criterion error: chain.",
      valueName: "s"))
  var structure: MatrixStructure?

  @Option(
    help: ArgumentHelp(
      "The bases in which chains are computed. auto: with --calibration, one orthogonal basis for all matrices that read the "
        + "residual stream, one for all that write to it, and elsewhere the neurons in the order of their weight. none: rows and "
        + "columns as they are. 'blocks.*.mix.weight=inputs:stream' names the space of a side where the matrix's name does not "
        + "show it: stream, own (shared with nothing) or any other name; sides of one size and name share a basis. Without inputs: "
        + "or outputs: both sides, where a basis pays. Repeatable. Default: auto.", valueName: "b|glob=[side:]space"))
  var basis: [BasisOption] = []

  func validate() throws {
    guard basis.count(where: { $0.choice != nil }) <= 1 else {
      throw ValidationError("--basis auto and --basis none apply to all chains: give one of them, once.")
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
