import ArgumentParser
import Checkpoints
import Conversion
import Glibc
import Recipes
import Squeezing
import TensorNetworks

/// Options of the subcommands that choose the matrices.
struct SelectionOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Sites of each matrix product operator.", valueName: "n"))
  var sites = 5

  @Option(
    help: ArgumentHelp(
      "Factors of the matrices that a glob matches, rows x columns; repeatable, the last match wins.",
      valueName: "glob=3,4,4,4,4x4,4,8,6,4"))
  var shape: [String] = []

  @Option(
    help: ArgumentHelp(
      "Decompose only the matrices this glob matches, of whatever size; repeatable. Without it: every floating-point "
        + "matrix with both sides at least \(TensorSelection.minimumSide).", valueName: "glob"))
  var include: [String] = []

  @Option(help: ArgumentHelp("Keep the matrices this glob matches dense; repeatable.", valueName: "glob"))
  var exclude: [String] = []

  @Flag(help: "Decompose rank-4 convolution kernels too, as matrices of output x the rest.")
  var convolutions = false

  func validate() throws {
    guard (2...16).contains(sites) else { throw ValidationError("--sites must be from 2 to 16, not \(sites).") }
  }

  func selection() throws -> TensorSelection {
    var selection = TensorSelection()
    selection.sites = sites
    selection.include = include
    selection.exclude = exclude
    selection.convolutions = convolutions
    selection.shapes = try shape.map(TensorSelection.parseShape)
    return selection
  }
}

/// Options of the subcommands that set a budget.
struct BudgetOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Parameters of the result over parameters of the input, of the whole checkpoint, at most.", valueName: "r"))
  var ratio: Double?

  @Option(
    help: ArgumentHelp("Relative Frobenius error of every decomposed matrix, at most.", valueName: "e"))
  var maxError: Double?

  @Option(help: ArgumentHelp("Bond dimensions, at most.", valueName: "d"))
  var bond: Int?

  @Flag(help: "Keep every bond at its numerical rank; matrices get larger, nothing but rounding is lost.")
  var lossless = false

  @Option(
    help: ArgumentHelp(
      "What a matrix may become: mpo (a chain of --sites), svd (a factorisation of low rank, a chain of two) or auto "
        + "(whichever has less error for its parameters, or dense; chosen over the whole network. With --calibration: "
        + "low rank or dense).", valueName: "s"))
  var structure = Structure.mpo

  @Option(
    help: ArgumentHelp(
      "Which bond is lowered next: error-per-parameter (growth of the squared relative error for every parameter "
        + "saved, weighted by size) or error (growth of the relative error, as published).", valueName: "c"))
  var criterion = SqueezeCriterion.errorPerParameter

  @Option(help: ArgumentHelp("Give the matrices this glob matches the same bonds; repeatable.", valueName: "glob"))
  var tie: [String] = []

  @Option(help: ArgumentHelp("Lower no bond below this.", valueName: "d"))
  var minBond = 1

  func validate() throws {
    if let ratio, !(ratio > 0 && ratio <= 1e3) { throw ValidationError("--ratio must be above 0, not \(ratio).") }
    if let maxError, !(maxError > 0 && maxError < 1) {
      throw ValidationError("--max-error must be between 0 and 1, not \(maxError).")
    }
    if let bond, bond < 1 { throw ValidationError("--bond must be at least 1, not \(bond).") }
    if minBond < 1 { throw ValidationError("--min-bond must be at least 1, not \(minBond).") }
    if structure != .mpo, bond != nil || lossless || criterion == .error {
      throw ValidationError(
        "--structure \(structure.rawValue) goes with --ratio or --max-error by error-per-parameter.")
    }
    if given.count > 1 { throw ValidationError("Give only one of --ratio, --max-error, --bond and --lossless.") }
  }

  private var given: [Budget] {
    [ratio.map(Budget.ratio), maxError.map(Budget.maximumError), bond.map(Budget.bond), lossless ? .lossless : nil]
      .compactMap(\.self)
  }

  /// nil when none of the options is there.
  var budget: Budget? { given.first }

  func requiredBudget() throws -> Budget {
    guard let budget else {
      throw ValidationError("Say how far to go: --ratio R, --max-error E, --bond D or --lossless.")
    }
    return budget
  }

  func plan(_ network: NetworkProfile, path: String) throws -> SqueezePlan {
    do {
      return try SqueezePlan(
        network, budget: requiredBudget(), criterion: criterion, ties: network.ties(tie, path: path),
        minimumBond: minBond, structure: structure, gauge: .canonical)
    } catch let error as SqueezeError {
      throw ConversionError.stageFile(path: path, reason: error.description)
    }
  }
}

extension SqueezeCriterion: ExpressibleByArgument {}
extension Structure: ExpressibleByArgument {}
extension DType: ExpressibleByArgument {
  public init?(argument: String) { self.init(rawValue: argument.uppercased()) }
}

/// Options of the subcommands that work through many tensors.
struct WorkOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("Matrices to work on at the same time; the result does not depend on it.", valueName: "n"))
  var jobs = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))

  @Option(
    help: ArgumentHelp("auto (a bar when stderr is a terminal), bar, json (a line a tensor) or none.", valueName: "how")
  )
  var progress = ProgressStyle.auto

  func validate() throws {
    guard (1...1024).contains(jobs) else { throw ValidationError("--jobs must be from 1 to 1024, not \(jobs).") }
  }
}
