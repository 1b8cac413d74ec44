import ArgumentParser
import Checkpoints
import Conversion
import Recipes

struct Profile: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compute the singular spectra of every matrix: the only stage before 'plan' that needs the weights.",
    discussion: """
      The stage computes only the spectra that --structure and the metric need. The file holds the recipe as far as the \
      options give it; 'mpo plan' adds the rest. Budget and storage may be given to either.
      """)

  @Argument(help: "The dense checkpoint.")
  var model: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write; - for stdout.", valueName: "profile.json"))
  var output: String

  @Option(help: ArgumentHelp("Take the recipe from this file instead of options.", valueName: "recipe.yaml"))
  var recipe: String?

  @OptionGroup(title: "Budget") var budget: BudgetOptions
  @OptionGroup(title: "Metric") var calibration: CalibrationOptions
  @OptionGroup(title: "Metric") var mask: MaskOptions
  @OptionGroup(title: "Matrices") var structure: StructureOptions
  @OptionGroup(title: "Matrices") var links: LinkOptions
  @OptionGroup(title: "Matrices") var selection: SelectionOptions
  @OptionGroup(title: "Storage") var storage: StorageOptions

  @Option(
    help: ArgumentHelp(
      "Do the K-th of N parts of the work, K from 1; 'mpo plan' takes all parts. slurm: the part of this task of a Slurm "
        + "array.", valueName: PartArgument.help), transform: PartArgument.parse)
  var part: SourceNetwork.Part?

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var work: WorkOptions
  @OptionGroup var done: DoneOptions
  @OptionGroup var outputOptions: OutputOptions

  private var recipeOptions: [any RecipeOptions] { [budget, mask, structure, links, selection, storage] }

  func validate() throws {
    if let source = try RecipeSource(recipe: recipe) {
      try source.refuse(recipeOptions.given + calibration.givenRidges)
    } else {
      try recipeOptions.check(metric: calibration.calibration != nil)
    }
  }

  func run() throws {
    HeavyWork.prepare()
    let checkpoint = try sourceOptions.open(model)
    let statistics = try calibration.statistics()
    let maskFile = try mask.file()
    let source = try RecipeSource(recipe: recipe)
    let recipe = try source?.recipe() ?? recipeOptions.recipe(calibration, statistics, maskFile)
    let inputs = [model] + checkpoint.files
    if done.skipDone, self.output == "-" { throw ValidationError("--skip-done has no effect with -o -; leave it out.") }
    let display = ProgressDisplay(work.progress)
    func pipeline() throws -> ConversionPipeline {
      try ConversionPipeline(
        checkpoint, recipe: recipe, statistics: statistics, mask: maskFile, options: work.options(display),
        from: source)
    }
    let read = checkpoint.inputFiles + [calibration.calibration, mask.path].compactMap(\.self)
    let isDone = try done.isDone(self.output, inputs: read) {
      try pipeline().made(Plan.profiles([self.output])[0].profile, part: part)
    }
    if isDone { return }
    let output = try StageOutput(self.output, outputOptions, inputs: inputs, replacing: done.skipDone)
    let pipeline = try pipeline()
    let profile = StageFile.Profile(
      source: model, part: part, recipe: recipe, sourceDType: try pipeline.sourceDType,
      network: try pipeline.profile(part: part))
    display.clear()
    try output.write(StageFile.encode(profile))
  }
}
