import ArgumentParser
import Conversion
import Recipes

/// Options of the subcommands that choose the matrices.
struct SelectionOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "Sites of each chain. Default: 5. With --structure svd: 2 and the square cores between the two frames, over which the "
        + "singular values are spread, to be trained alone.", valueName: "n"))
  var sites: Int?

  @Option(
    help: ArgumentHelp(
      "Factors of the matrices that a glob matches, rows x columns; repeatable, the last match wins.",
      valueName: "glob=3,4,4,4,4x4,4,8,6,4"))
  var shape: [String] = []

  @Option(
    help: ArgumentHelp(
      "Decompose only the matrices this glob matches, of whatever size; repeatable. Without it: every floating-point "
        + "matrix with both sides at least \(TensorSelection.minimumSide). What is no weight (training state, scales of "
        + "quantised weights, buffers) needs its whole name here.", valueName: "glob"))
  var include: [String] = []

  @Option(help: ArgumentHelp("Keep the matrices this glob matches dense; repeatable.", valueName: "glob"))
  var exclude: [String] = []

  @Flag(
    help:
      "Decompose convolution kernels of any rank too, as matrices of output x the rest; those of Keras with the sides that are nearest to each other."
  )
  var convolutions = false

  @Flag(
    inversion: .prefixedNo,
    help:
      "Decompose each matrix of tensors [experts, rows, columns]. Default: where a name has 'experts' in it or config.json gives so many."
  )
  var experts: Bool?

  func validate() throws {
    if let sites, !(2...16).contains(sites) {
      throw ValidationError("--sites must be from 2 to 16, not \(sites).")
    }
  }

  var given: [String] {
    [
      sites.map { _ in "selection.sites" }, shape.isEmpty ? nil : "selection.shapes",
      include.isEmpty ? nil : "selection.include", exclude.isEmpty ? nil : "selection.exclude",
      convolutions ? "selection.convolutions" : nil, experts.map { _ in "selection.experts" },
    ].compactMap(\.self)
  }

  func write(to recipe: inout ConversionRecipe) throws { try write(to: &recipe.selection) }

  func selection() throws -> TensorSelection {
    var selection = TensorSelection()
    try write(to: &selection)
    return selection
  }

  private func write(to selection: inout TensorSelection) throws {
    if let sites { selection.sites = sites }
    if !shape.isEmpty { selection.shapes = try shape.map(TensorSelection.parseShape) }
    if !include.isEmpty { selection.include = include }
    if !exclude.isEmpty { selection.exclude = exclude }
    if convolutions { selection.convolutions = true }
    if let experts { selection.experts = experts }
  }
}
