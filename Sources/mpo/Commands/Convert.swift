import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Recipes
import Squeezing

struct Convert: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Turn a dense checkpoint into an MPO checkpoint.",
    discussion: """
      MODEL is a .safetensors or HDF5 file, a *.safetensors.index.json or a model folder. Every weight matrix becomes \
      cores or stays dense, whichever is better for the whole network at the budget given.

      A recipe is everything that decides the result. Options describe one; --recipe, --like and --plan take a whole one, \
      and options that it already decides are then refused.
      """)

  @Argument(help: "The dense checkpoint.")
  var model: String

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("The folder to write. Optional with --dry-run.", valueName: "out.mpo")
  )
  var output: String?

  @Flag(
    help:
      "Print what the conversion would store, and the errors, time and memory to expect; write nothing."
  )
  var dryRun = false

  @Option(
    help: ArgumentHelp(
      "With --dry-run: the profile of this model that 'mpo profile' wrote; repeatable, for all its parts. Without it and without "
        + "--plan the errors are not known.", valueName: "profile.json"))
  var profile: [String] = []

  @Option(help: ArgumentHelp("Take the recipe from this file instead of options.", valueName: "recipe.yaml"))
  var recipe: String?

  @Option(
    help: ArgumentHelp(
      "Take the recipe of this MPO checkpoint: it makes the same bytes of the same model.",
      valueName: "other.mpo"))
  var like: String?

  @Option(
    help: ArgumentHelp("Take the recipe and the bonds from this plan, which 'mpo plan' wrote.", valueName: "plan.json"))
  var plan: String?

  @Option(
    help: ArgumentHelp(
      "With --plan: convert only the K-th of N parts of the tensors, K from 1; 'mpo merge' joins the parts. slurm: the part of "
        + "this task of a Slurm array.", valueName: PartArgument.help), transform: PartArgument.parse)
  var part: SourceNetwork.Part?

  @Flag(
    help:
      "Write Python code into the folder, so that transformers loads it with trust_remote_code=True and without the package mpo_checkpoint."
  )
  var remoteCode = false

  @Option(
    help: ArgumentHelp(
      "With --dry-run: print the time and memory of each part when profile and conversion are done in N parts.",
      valueName: "n"))
  var parts: Int?

  @Flag(help: "With --parts: estimate as if every matrix had statistics, where they are still to be made.")
  var withStatistics = false

  @OptionGroup(title: "Budget") var budget: BudgetOptions
  @OptionGroup(title: "Metric") var calibration: CalibrationOptions
  @OptionGroup(title: "Metric") var mask: MaskOptions
  @OptionGroup(title: "Matrices") var structure: StructureOptions
  @OptionGroup(title: "Matrices") var links: LinkOptions
  @OptionGroup(title: "Matrices") var selection: SelectionOptions
  @OptionGroup(title: "Storage") var storage: StorageOptions

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var work: WorkOptions
  @OptionGroup var done: DoneOptions
  @OptionGroup var outputOptions: OutputOptions

  private var recipeOptions: [any RecipeOptions] { [budget, mask, structure, links, selection, storage] }

  private var source: RecipeSource? {
    get throws { try RecipeSource(plan: plan, recipe: recipe, like: like) }
  }

  func validate() throws {
    if let source = try source {
      try source.refuse(recipeOptions.given + calibration.givenRidges)
    } else {
      try recipeOptions.check(metric: calibration.calibration != nil || withStatistics)
      guard budget.hasBudget else { throw BudgetOptions.missing }
    }
    if withStatistics, parts == nil || calibration.calibration != nil {
      throw ValidationError(
        "--with-statistics goes with --parts, and has no effect with --calibration, which gives statistics; leave it out."
      )
    }
    if dryRun {
      if remoteCode {
        throw ValidationError("--remote-code has no effect with --dry-run; leave one of them out.")
      }
      if part != nil {
        throw ValidationError("--part has no effect with --dry-run; leave one of them out. --parts N shows all parts.")
      }
      if let parts, !(1...100_000).contains(parts) {
        throw ValidationError("--parts must be from 1 to 100000, not \(parts).")
      }
      if done.skipDone { throw ValidationError("--skip-done has no effect with --dry-run; leave one of them out.") }
      if plan != nil, !profile.isEmpty {
        throw ValidationError(
          "--profile has no effect with --plan, which holds what it says; leave one of them out.")
      }
    } else {
      if parts != nil { throw ValidationError("--parts goes with --dry-run; --part K/N converts one of them.") }
      if output == nil { throw ValidationError("Missing expected argument '--output <out.mpo>'") }
      if !profile.isEmpty {
        throw ValidationError(
          "--profile goes with --dry-run; for a conversion make a plan from it with 'mpo plan' and pass that with --plan."
        )
      }
    }
    if part != nil, plan == nil {
      throw ValidationError(
        "--part goes with --plan, the same plan for all parts: make it with 'mpo profile' and 'mpo plan'.")
    }
  }

  func run() throws {
    HeavyWork.prepare()
    let checkpoint = try sourceOptions.open(model)
    if remoteCode, let obstacle = try RemoteCode.obstacle(inFolder: checkpoint.folder) {
      throw ConversionError.stageFile(path: model, reason: "\(obstacle); leave out --remote-code")
    }
    let statistics = try calibration.statistics()
    let maskFile = try mask.file()
    let source = try source
    let planned = try plan.map(RecipeSource.planFile)
    let recipe = try planned?.recipe ?? source?.recipe() ?? recipeOptions.recipe(calibration, statistics, maskFile)
    guard let path = output, !dryRun else {
      return try DryRun(checkpoint, recipe, statistics, maskFile, work, from: source).print(
        plan: planned?.plan, profiles: profile, parts: parts, expectsStatistics: withStatistics)
    }
    let inputs = [model] + checkpoint.files
    let display = ProgressDisplay(work.progress)
    func pipeline(scratchFolder: String?) throws -> ConversionPipeline {
      try ConversionPipeline(
        checkpoint, recipe: recipe, statistics: statistics, mask: maskFile,
        options: work.options(display, scratchFolder: scratchFolder), passes: planned == nil ? 2 : 1, from: source)
    }
    let read = checkpoint.inputFiles + [calibration.calibration, mask.path].compactMap(\.self)
    let isDone = try done.isDone(path, inputs: read) {
      try pipeline(scratchFolder: nil).made(MPOCheckpoint(path: path), planned?.plan, part: part)
    }
    if isDone { return }
    let output = try outputOptions.begin(path, kind: .folder, inputs: inputs, replacing: done.skipDone)
    let pipeline = try pipeline(scratchFolder: ScratchFolder.path(besides: output.temporaryPath))
    let plan = try planned?.plan ?? pipeline.plan(pipeline.profile())
    if let warning = Self.warning(of: plan, recipe, checkpoint) {
      display.clear()
      warn(warning)
    }
    var manifest = try pipeline.decompose(plan, to: output.temporaryPath, part: part)
    if remoteCode { manifest = try RemoteCode.add(RemoteCodeText.text, to: output.temporaryPath, manifest) }
    display.clear()
    if part == nil { try Card.write(manifest, to: output.temporaryPath) }
    try output.commit()
    try StandardOutput.write(Summary(manifest).text(of: path))
  }
}

extension Convert {
  /// What to expect when most matrices of a language model become chains of more than two sites; nil where they don't.
  static func warning(
    of plan: SqueezePlan, _ recipe: ConversionRecipe, _ checkpoint: any DenseCheckpoint
  ) -> String? {
    let chains = plan.layers.count { $0.bonds != nil && !$0.shape.isFactored }
    guard recipe.budget != .lossless, !recipe.usesBases, 2 * chains > plan.layers.count,
      ModelConfiguration(of: checkpoint).isLanguageModel
    else {
      return nil
    }
    let count = max(plan.layers.count, TensorSelection().matrixCount(in: checkpoint))
    guard 2 * chains > count else { return nil }
    return
      "\(chains) of \(count) matrices of this language model become chains of more than two sites. Without training afterwards "
      + "that ruins its text: at a ratio of 0.8 the perplexity of SmolLM2-135M rose from 28 to 16,029, and with low-rank factors "
      + "to 43; give --calibration, and leave out --sites, --shape and --structure chain"
  }
}

extension ConversionPipeline {
  /// - Parameter origin: where the recipe is from, for messages; nil for options.
  init(
    _ source: any DenseCheckpoint, recipe: ConversionRecipe, statistics: CalibrationStatistics?, mask: MaskFile?,
    options: ConversionOptions, passes: Int = 1, from origin: RecipeSource?
  ) throws {
    do {
      try self.init(
        source, recipe: recipe, statistics: statistics, mask: mask, options: options, passes: passes)
    } catch let mismatch as StatisticsMismatch {
      throw origin?.error(for: mismatch) ?? mismatch
    } catch let mismatch as MaskMismatch {
      let remedy = if case .unexpected = mismatch { "leave it out" } else { "pass the same file with --mask" }
      throw ConversionError.stageFile(path: origin?.path ?? source.path, reason: "\(mismatch): \(remedy)")
    }
  }
}
