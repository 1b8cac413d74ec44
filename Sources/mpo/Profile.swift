import ArgumentParser
import Checkpoints
import Conversion

struct Profile: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compute the singular spectra of every matrix: the only stage before 'plan' that needs the weights.")

  @Argument(help: "The dense checkpoint.")
  var model: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write; - for stdout.", valueName: "profile.json"))
  var output: String

  @OptionGroup(title: "Metric") var calibration: CalibrationOptions
  @OptionGroup(title: "Matrices") var selection: SelectionOptions

  @Option(
    help: ArgumentHelp("Do the K-th of N parts of the work, K from 1; 'plan' takes all of them.", valueName: "k/n"))
  var part: SourceNetwork.Part?

  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  func run() throws {
    Relaunch.withBetterKernels()
    let checkpoint = try openDenseCheckpoint(at: model)
    let network = try SourceNetwork(checkpoint, selection: selection.selection())
    let output = try StageOutput(output, outputOptions, inputs: [model] + checkpoint.files)
    let display = ProgressDisplay(work.progress)
    let statistics = try calibration.statistics()
    if let warning = try statistics?.warning(for: network) { warn(warning) }
    let (profile, warnings) = try network.profile(
      part: part, statistics: statistics, jobs: work.jobs, progress: display.handler)
    display.clear()
    warnings.forEach(warn)
    try output.write(StageFile.encode(StageFile.Profile(source: model, part: part, network: profile)))
  }
}

extension SourceNetwork.Part: ExpressibleByArgument {
  public init?(argument: String) {
    let numbers = argument.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
    guard numbers.count == 2, let index = numbers[0], let count = numbers[1] else { return nil }
    self.init(index: index, count: count)
  }
}
