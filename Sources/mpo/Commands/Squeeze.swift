import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import SqueezeLoop
import Squeezing
import TensorNetworks

struct Squeeze: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lower bonds as far as your own evaluation of the network allows.",
    discussion: """
      Each round lowers the bonds that cost least, by --step parameters, runs --finetune (if it is given) and then \
      --evaluate on the result, and accepts it if the score is within the limit. After a rejected round the step is halved, \
      until --min-step. OUT is the smallest model that was accepted.

      INPUT is an MPO checkpoint, whose operators are squeezed, or a dense model, whose matrices stay dense until their \
      cores are smaller. --max-drop is measured from the score of INPUT.

      Commands run in /bin/sh. The path of the checkpoint is in $MPO_CHECKPOINT and replaces each {} (already quoted). \
      --evaluate prints one number as its last line of stdout. --finetune reads $MPO_CHECKPOINT and writes a whole MPO \
      checkpoint to $MPO_OUTPUT, which does not exist yet: the same tensors with new values, bonds no higher. Neither may \
      change the checkpoint that it reads. Their output is shown only when they fail.

      Meanwhile OUT.squeeze/ beside OUT holds the accepted model. The journal, OUT.squeeze.jsonl, has a line for every \
      finished round and is kept. The commands get checkpoints that are not packed; OUT is packed if INPUT is, or with \
      --pack. After an interruption of any kind the same command with --resume continues, to the same result.
      """)

  @Argument(help: "An MPO checkpoint or a dense model.")
  var input: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The MPO checkpoint to write.", valueName: "out.mpo"))
  var output: String

  @Option(
    help: ArgumentHelp(
      "A command that prints the score of the checkpoint, a number, as its last line.", valueName: "command"))
  var evaluate: String

  @Option(
    help: ArgumentHelp("A command that trains the checkpoint, e.g. its auxiliary cores only.", valueName: "command"))
  var finetune: String?

  @Option(help: ArgumentHelp("Accept scores that are worse than the score of INPUT by at most D.", valueName: "d"))
  var maxDrop: Double?

  @Option(
    help: ArgumentHelp("Accept scores of at least S (with --lower-is-better: at most S).", valueName: "s"))
  var minScore: Double?

  @Flag(help: "The score is a loss: lower is better.")
  var lowerIsBetter = false

  @Option(help: ArgumentHelp("The largest number of rounds, accepted or not.", valueName: "n"))
  var maxSteps: Int?

  @Option(
    help: ArgumentHelp(
      "The parameters to save in a round: a number, or a share of those of INPUT, as 2%.", valueName: "p"))
  var step: SqueezeOptions.Step = .fraction(0.02)

  @Option(
    help: ArgumentHelp("The smallest step, at which halving stops. Default: a sixteenth of --step.", valueName: "p"))
  var minStep: SqueezeOptions.Step?

  @Option(
    help:
      "Which bond is lowered first: the one whose squared error grows least per parameter saved, or the one whose error grows least, as in arXiv 2106.02205."
  )
  var criterion = SqueezeCriterion.errorPerParameter

  @Option(
    help: ArgumentHelp("Give all matrices that this glob matches the same bonds; repeatable.", valueName: "glob"))
  var tie: [String] = []

  @Option(
    help: ArgumentHelp(
      "Lower no bond below this; GLOB=D for the matrices that the glob matches; repeatable, the last match wins.",
      valueName: "d|glob=d"))
  var minBond: [SqueezeOptions.MinimumBond] = []

  @Option(
    help: ArgumentHelp("Kill a command that runs longer: seconds, or 30m, 2h.", valueName: "time"))
  var timeout: Seconds?

  @Option(
    help: ArgumentHelp(
      "The type of the cores that dense matrices become. Default: the type of the matrix.", valueName: "type"))
  var dtype: CoreDType?

  @Option(
    help: ArgumentHelp(
      "The gauge in which operators are stored: compact, canonical or spectral (see 'mpo help convert'). Default: the gauge "
        + "in INPUT; compact for matrices that were dense.", valueName: "g"))
  var gauge: Gauge?

  @Flag(help: "Pack OUT losslessly, as 'mpo convert --pack' does. Default: if INPUT is packed.")
  var pack = false

  @OptionGroup(title: "Matrices") var selection: SelectionOptions

  @Option(help: ArgumentHelp("The file of the journal. Default: OUT.squeeze.jsonl.", valueName: "file"))
  var journal: String?

  @Flag(help: "Continue the squeeze of the journal; begin one if there is none.")
  var resume = false

  @Flag(help: "Print a JSON object instead of a table.")
  var json = false

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  func validate() throws {
    switch (maxDrop, minScore) {
    case (nil, nil): throw ValidationError("Give the limit of the score: --max-drop D or --min-score S.")
    case (_?, _?): throw ValidationError("Give only one of --max-drop and --min-score.")
    case (let drop?, nil) where !(drop >= 0 && drop.isFinite):
      throw ValidationError("--max-drop must be a number of at least 0, not \(drop).")
    case (nil, let score?) where !score.isFinite: throw ValidationError("--min-score must be a number, not \(score).")
    default: break
    }
    for (option, command) in [("--evaluate", evaluate), ("--finetune", finetune ?? "-")]
    where command.allSatisfy(\.isWhitespace) {
      throw ValidationError("\(option) must be a command.")
    }
    if selection.experts != nil {
      throw ValidationError("--experts and --no-experts go with 'mpo convert'; squeeze what it writes.")
    }
    if let maxSteps, maxSteps < 1 { throw ValidationError("--max-steps must be at least 1, not \(maxSteps).") }
  }

  private var options: SqueezeOptions {
    var options = SqueezeOptions(
      evaluate: evaluate, limit: maxDrop.map(SqueezeOptions.Limit.maximumDrop) ?? .worstScore(minScore ?? 0))
    options.finetune = finetune
    options.lowerIsBetter = lowerIsBetter
    options.maximumRounds = maxSteps
    options.step = step
    options.minimumStep = minStep
    options.criterion = criterion
    options.ties = tie
    options.minimumBonds = minBond
    options.coreDType = dtype?.dtype
    options.gauge = gauge
    options.packs = pack
    return options
  }

  func run() throws {
    HeavyWork.prepare()
    var loop = SqueezeLoop(options: options, jobs: work.jobs, generator: MPOTool.generator)
    loop.selection = try selection.selection()
    loop.followsLinks = sourceOptions.followsLinks
    loop.timeout = timeout.map { .seconds($0.value) }
    let display = SqueezeDisplay(work.progress)
    let result: SqueezeLoop.Result
    do {
      result = try loop.run(
        input, to: output, journal: journal, resuming: resume, replacing: outputOptions.force, events: display.show)
    } catch let error as SqueezeLoopError {
      if case .commandFailed(_, _, _, let errors) = error { StandardError.write(Self.lastLines(of: errors)) }
      throw error
    }
    if json {
      try StandardOutput.writeJSON(
        Report(path: output, reason: result.reason, accepted: result.accepted.round, rounds: result.rounds))
    } else {
      try StandardOutput.write(SqueezeDisplay.text(of: result, path: output))
    }
  }

  /// The end of what a failed command wrote to its stderr.
  private static func lastLines(of errors: String) -> String {
    errors.split(whereSeparator: \.isNewline).suffix(20).map { "  | \(escaped(String($0), limit: 400))\n" }.joined()
  }

  /// What `--json` prints.
  private struct Report: Encodable {
    let path: String
    let reason: String
    /// The round whose model is the output.
    let accepted: Int
    let rounds: [SqueezeJournal.Round]
  }
}

/// A length of time on the command line.
struct Seconds: ExpressibleByArgument {
  let value: Double

  init?(argument: String) {
    let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600]
    let unit = argument.last.flatMap { units[$0] }
    guard let number = Double(unit == nil ? argument : String(argument.dropLast())),
      number > 0, number * (unit ?? 1) < 1e9
    else { return nil }
    value = number * (unit ?? 1)
  }
}

extension SqueezeOptions.Step: ExpressibleByArgument {
  public init?(argument: String) {
    if argument.hasSuffix("%") {
      guard let percent = Double(argument.dropLast()), percent > 0, percent <= 100 else { return nil }
      self = .fraction(percent / 100)
    } else {
      guard let count = Int(argument), count > 0 else { return nil }
      self = .parameters(count)
    }
  }

  public var defaultValueDescription: String {
    switch self {
    case .parameters(let count): "\(count)"
    case .fraction(let fraction): "\(Int((fraction * 100).rounded()))%"
    }
  }
}

extension SqueezeOptions.MinimumBond: ExpressibleByArgument {
  public init?(argument: String) {
    let separator = argument.lastIndex(of: "=")
    let glob = separator.map { String(argument[..<$0]) } ?? "*"
    let number = separator.map { argument[argument.index(after: $0)...] } ?? argument[...]
    guard let bond = Int(number), bond >= 1, !glob.isEmpty else { return nil }
    self.init(glob: glob, bond: bond)
  }
}
