import ArgumentParser
import Conversion
import Recipes

/// Options of the subcommands that choose the matrices.
struct SelectionOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "The number of sites of each chain. Default: 5. With --structure svd: two frames and N - 2 square cores between them, which "
        + "share the singular values and can be trained alone.", valueName: "n"))
  var sites: Int?

  @Option(
    help: ArgumentHelp(
      "The factors of the matrices that a glob matches, row factors x column factors; repeatable, the last match wins.",
      valueName: "glob=3,4,4,4,4x4,4,8,6,4"))
  var shape: [String] = []

  @Option(
    help: ArgumentHelp(
      "Decompose only the matrices that this glob matches, whatever their size; repeatable. Default: every floating-point "
        + "matrix with both sides at least \(TensorSelection.minimumSide). Training state, scales of quantised weights and "
        + "buffers are decomposed only if their whole name is given here.", valueName: "glob"))
  var include: [String] = []

  @Option(help: ArgumentHelp("Keep the matrices that this glob matches dense; repeatable.", valueName: "glob"))
  var exclude: [String] = []

  @Flag(
    help:
      "Decompose convolution kernels of any rank too: in PyTorch's layout as matrices of output x the rest, in Keras' layout split where the two sides are nearest to each other."
  )
  var convolutions = false

  @Flag(
    inversion: .prefixedNo,
    help:
      "Decompose each matrix of a stack [experts, rows, columns]. Default: where the name contains 'experts' or config.json gives this number of experts."
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
