import ArgumentParser
import Recipes
import Squeezing

/// Options of the subcommands that set a budget.
struct BudgetOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "The largest ratio of parameters, result over input, of the whole checkpoint.", valueName: "r"))
  var ratio: Double?

  @Option(
    help: ArgumentHelp(
      "The largest ratio of parameters of the selected matrices alone.",
      valueName: "r"))
  var matrixRatio: Double?

  @Option(
    help: ArgumentHelp(
      "The largest size of the whole checkpoint: a share of the input's bytes, as 0.3, or a size, as 60MB. Every matrix stays whole or "
        + "becomes low-rank factors, in plain values or integers of 8 to 2 bits, whichever has the least error for its bytes.",
      valueName: "b"))
  var bytes: Budget.ByteLimit?

  @Option(help: ArgumentHelp("The same limit for the selected matrices alone.", valueName: "b"))
  var matrixBytes: Budget.ByteLimit?

  @Option(
    help: ArgumentHelp(
      "The largest relative error of each decomposed matrix, in the Frobenius norm or, with --calibration, in its metric.",
      valueName: "e"))
  var maxError: Double?

  @Option(help: ArgumentHelp("The largest bond dimension.", valueName: "d"))
  var bond: Int?

  @Flag(help: "Keep every bond at its numerical rank, so that only rounding is lost.")
  var lossless = false

  @Option(
    help: ArgumentHelp(
      "Which bond is lowered next: error-per-parameter (growth of the squared relative error for every parameter "
        + "saved, weighted by size) or error (growth of the relative error, as published). Default: "
        + "error-per-parameter.", valueName: "c"))
  var criterion: SqueezeCriterion?

  @Option(help: ArgumentHelp("Give all matrices that this glob matches the same bonds; repeatable.", valueName: "glob"))
  var tie: [String] = []

  @Option(help: ArgumentHelp("Lower no bond below this. Default: 1.", valueName: "d"))
  var minBond: Int?

  @Option(
    help: ArgumentHelp(
      "Make bonds multiples of this, except full ones and those below it; 1 for any bond. With 8 or 16 layers made of cores "
        + "run faster on most processors, at nearly the same error. Default: 8 for matrices of low rank with at least 256 "
        + "rows and columns, 1 for others and for chains.", valueName: "n"))
  var align: Int?

  func validate() throws {
    if let ratio, !(ratio > 0 && ratio <= 1e3) {
      throw ValidationError("--ratio must be above 0 and at most 1000, not \(ratio).")
    }
    if let matrixRatio, !(matrixRatio > 0 && matrixRatio <= 1e3) {
      throw ValidationError("--matrix-ratio must be above 0 and at most 1000, not \(matrixRatio).")
    }
    if let maxError, !(maxError > 0 && maxError < 1) {
      throw ValidationError("--max-error must be between 0 and 1, not \(maxError).")
    }
    if let bond, bond < 1 { throw ValidationError("--bond must be at least 1, not \(bond).") }
    if let minBond, minBond < 1 { throw ValidationError("--min-bond must be at least 1, not \(minBond).") }
    if let align, !BondAlignment.allowed.contains(align) {
      throw ValidationError("--align must be from 1 to 128, not \(align).")
    }
    if budgets.count > 1 {
      throw ValidationError(
        "Give only one of --ratio, --matrix-ratio, --bytes, --matrix-bytes, --max-error, --bond and --lossless.")
    }
  }

  private var budgets: [(member: String, budget: Budget)] {
    [
      ratio.map { ("budget.ratio", .ratio($0)) },
      matrixRatio.map { ("budget.matrix_ratio", .matrixRatio($0)) },
      bytes.map { ("budget.bytes", .bytes($0)) }, matrixBytes.map { ("budget.matrix_bytes", .matrixBytes($0)) },
      maxError.map { ("budget.max_error", .maximumError($0)) },
      bond.map { ("budget.bond", .bond($0)) }, lossless ? ("budget.lossless", .lossless) : nil,
    ].compactMap(\.self)
  }

  var hasBudget: Bool { !budgets.isEmpty }

  var given: [String] {
    budgets.map(\.member)
      + [
        criterion.map { _ in "criterion" }, tie.isEmpty ? nil : "ties", minBond.map { _ in "minimum_bond" },
        align.map { _ in "alignment" },
      ]
      .compactMap(\.self)
  }

  func write(to recipe: inout ConversionRecipe) {
    if let budget = budgets.first?.budget { recipe.budget = budget }
    if let criterion { recipe.criterion = criterion }
    if !tie.isEmpty { recipe.ties = tie }
    if let minBond { recipe.minimumBond = minBond }
    if let align { recipe.alignment = .multiples(of: align) }
  }

  static let missing = ValidationError(
    "Give a budget, or check its spelling: --ratio R, --matrix-ratio R, --bytes B, --matrix-bytes B, --max-error E, --bond D or --lossless."
  )
}

extension SqueezeCriterion: ExpressibleByArgument {}
extension Budget.ByteLimit: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}
