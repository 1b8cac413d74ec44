import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Recipes
import Reports

struct Adapt: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Correct a quantised or otherwise compressed model with a LoRA adapter.",
    discussion: """
      COMPRESSED is a dense checkpoint (a quantised model, written out densely) or an MPO checkpoint. For each linear layer \
      the adapter is the best correction of rank R, in the metric of the statistics. It is an ordinary adapter of the PEFT \
      library: what loads such adapters loads this one, whatever form COMPRESSED has there.
      """)

  @Argument(help: "The compressed model.")
  var compressed: String

  @Option(help: ArgumentHelp("The dense checkpoint from which the compressed model was made.", valueName: "model"))
  var against: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The folder to write.", valueName: "adapter"))
  var output: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The rank of each correction.", valueName: "r"))
  var rank: Int

  @OptionGroup(title: "Metric") var calibration: CalibrationOptions

  @Option(help: ArgumentHelp("Correct only the matrices that this glob matches; repeatable.", valueName: "glob"))
  var include: [String] = []

  @Option(help: ArgumentHelp("Leave out the matrices that this glob matches; repeatable.", valueName: "glob"))
  var exclude: [String] = []

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  func validate() throws {
    if rank < 1 { throw ValidationError("--rank must be at least 1, not \(rank).") }
  }

  func run() throws {
    HeavyWork.prepare()
    let original = try sourceOptions.open(against)
    let compressed = try CompressedModel(path: self.compressed)
    var statistics = try calibration.statistics()
    statistics?.inputRidge = calibration.inputRidge
    statistics?.outputRidge = calibration.outputRidge
    let output = try outputOptions.begin(
      output, kind: .folder, inputs: [against, self.compressed] + original.files + compressed.files)
    let display = ProgressDisplay(work.progress)
    var selection = TensorSelection()
    (selection.include, selection.exclude) = (include, exclude)
    let adapter = Adapter(
      rank: rank, selection: selection, statistics: statistics, options: work.options(display))
    let report = try adapter.write(
      for: compressed, against: original, to: output.temporaryPath, base: self.compressed)
    display.clear()
    try output.commit()
    let norm = statistics == nil ? " (Frobenius)" : ", in the metric"
    let errors = "error \(small(report.errorBefore)) -> \(small(report.errorAfter)) relative\(norm), over the matrices"
    let counts = "\(report.matrices) matrices, rank \(rank), \(grouped(report.parameters)) parameters"
    try StandardOutput.write("\(escaped(self.output, limit: 4096)): \(counts)\n\(errors)\n")
  }
}
