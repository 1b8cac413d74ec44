import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Squeezing

struct Convert: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Turn a dense checkpoint into an MPO checkpoint.",
    discussion: """
      MODEL is a .safetensors or HDF5 file, a *.safetensors.index.json or a model folder. Every weight matrix becomes a \
      chain of cores; bonds are lowered over the whole network until the budget is met. A matrix whose cores would not \
      be smaller stays dense (but not with --lossless).
      """)

  @Argument(help: "The dense checkpoint.")
  var model: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The folder to write.", valueName: "out.mpo"))
  var output: String

  @OptionGroup(title: "Budget") var budget: BudgetOptions
  @OptionGroup(title: "Metric") var calibration: CalibrationOptions
  @OptionGroup(title: "Matrices") var selection: SelectionOptions

  @Option(help: ArgumentHelp("Take the bonds from what 'mpo plan' wrote, instead of a budget.", valueName: "plan.json"))
  var plan: String?

  @Option(
    help: ArgumentHelp(
      "With --plan: convert the K-th of N parts of the tensors only, K from 1; 'merge' joins all of them.",
      valueName: "k/n"))
  var part: SourceNetwork.Part?

  @Option(
    help: ArgumentHelp(
      "Type of the cores: f64, f32, f16 or bf16. Default: that of the source; with --lossless at least f32.",
      valueName: "type"))
  var dtype: DType?

  @Option(
    help: ArgumentHelp(
      "Store the central cores as bytes with scales, a quarter of f32; the other cores keep their type.",
      valueName: "int8"))
  var central: CentralCoding?

  @Flag(
    help: "Pack what is stored: lossless, smaller than gzip and faster. Any entry that would not shrink stays as it is."
  )
  var pack = false

  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  func validate() throws {
    if plan != nil, budget.budget != nil {
      throw ValidationError("--plan holds a budget already; leave out --ratio, --max-error, --bond and --lossless.")
    }
    if plan == nil { _ = try budget.requiredBudget() }
    if part != nil, plan == nil {
      throw ValidationError(
        "--part goes with --plan, the same for all parts: make it with 'mpo profile' and 'mpo plan'.")
    }
    if let dtype, !dtype.isDecomposable {
      throw ValidationError("--dtype must be f64, f32, f16 or bf16, not \(dtype.rawValue.lowercased()).")
    }
  }

  func run() throws {
    Relaunch.withBetterKernels()
    let checkpoint = try openDenseCheckpoint(at: model)
    let selection = try selection.selection()
    let output = try outputOptions.begin(output, kind: .folder, inputs: [model] + checkpoint.files)
    let display = ProgressDisplay(work.progress)

    var converter = Converter(jobs: work.jobs, generator: MPOTool.generator)
    converter.coreDType = dtype
    converter.quantizesCentralCores = central == .int8
    converter.packs = pack
    converter.part = part
    converter.statistics = try calibration.statistics()
    let plan: SqueezePlan
    if let path = self.plan {
      let bytes = try readFile(path)
      plan = try StageFile.decode(bytes, as: StageFile.Plan.self, format: StageFile.Plan.formatName, path: path).plan
      converter.options = ["plan": plan.budget]
    } else {
      let network = try SourceNetwork(checkpoint, selection: selection)
      if let warning = try converter.statistics?.warning(for: network) { warn(warning) }
      let (profile, warnings) = try network.profile(
        statistics: converter.statistics, jobs: work.jobs, progress: display.handler)
      display.clear()
      warnings.forEach(warn)
      plan = try budget.plan(profile, path: model)
      converter.options = ["budget": plan.budget, "criterion": plan.criterion.rawValue]
      if case .maximumError(let error)? = budget.budget { converter.maximumError = error }
      if budget.lossless { converter.isLossless = true }
    }
    if let statistics = converter.statistics {
      converter.options.merge(try statistics.options) { own, _ in own }
    }
    if let central { converter.options["central"] = central.rawValue }
    if pack { converter.options["pack"] = PackedEntry.codec }
    let records = try converter.convert(checkpoint, plan: plan, to: output.temporaryPath, progress: display.handler)
    display.clear()
    try output.commit()
    try StandardOutput.write(Summary(records).text(of: self.output))
  }
}

/// What a conversion did, in a few lines.
struct Summary {
  private let records: [TensorRecord]

  init(_ records: [TensorRecord]) { self.records = records }

  /// Of the source, of what is stored, and of that before it was packed.
  static func bytes(of totals: Manifest.Totals) -> String {
    let text = "\(mpo.bytes(totals.bytesBefore)) -> \(mpo.bytes(totals.bytesStored))"
    return text + (totals.bytesUnpacked.map { ", packed from \(mpo.bytes($0))" } ?? "")
  }

  func text(of path: String) -> String {
    let totals = Manifest.Totals(records)
    let matrices = records.compactMap(\.mpo)
    let tied = records.count { if case .tied = $0.storage { true } else { false } }
    let smallerSVD = matrices.count { mpo in
      if let error = mpo.relativeError, let svd = mpo.svdRelativeError { svd < error * (1 - 1e-3) } else { false }
    }
    var text = """
      \(escaped(path, limit: 4096))
        tensors     \(matrices.count) as cores, \(records.count - matrices.count - tied) dense, \(tied) tied
        parameters  \(grouped(totals.parametersBefore)) -> \(grouped(totals.parametersStored)) \
      (ratio \(fixed(totals.ratio, 4))), \(grouped(totals.parametersTrainable)) trainable without the central cores
        bytes       \(Self.bytes(of: totals))
        error       \(small(totals.relativeError)) relative, over the matrices in cores

      """
    if smallerSVD > 0, (totals.relativeError ?? 0) > 1e-5 {
      text +=
        "  note        truncated SVD of the same size has a smaller error for \(smallerSVD) of "
        + "\(matrices.count) matrices\n"
    }
    return text
  }
}
