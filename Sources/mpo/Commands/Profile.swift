import ArgumentParser
import Checkpoints
import Conversion
import Recipes

struct Profile: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compute the singular spectra of every matrix: the only stage before 'plan' that needs the weights.",
    discussion: """
      The stage computes only the spectra that --structure and the metric need. The file holds the recipe as far as the \
      options decide it; 'mpo plan' adds the rest.
      """)

  @Argument(help: "The dense checkpoint.")
  var model: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write; - for stdout.", valueName: "profile.json"))
  var output: String

  @Option(help: ArgumentHelp("Take the recipe from this file, instead of options.", valueName: "recipe.yaml"))
  var recipe: String?

  @OptionGroup(title: "Metric") var calibration: CalibrationOptions
  @OptionGroup(title: "Metric") var mask: MaskOptions
  @OptionGroup(title: "Matrices") var structure: StructureOptions
  @OptionGroup(title: "Matrices") var links: LinkOptions
  @OptionGroup(title: "Matrices") var selection: SelectionOptions

  @Option(
    help: ArgumentHelp("Do the K-th of N parts of the work, K from 1; 'plan' takes all of them.", valueName: "k/n"))
  var part: SourceNetwork.Part?

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  private var recipeOptions: [any RecipeOptions] { [mask, structure, links, selection] }

  func validate() throws {
    if let source = try RecipeSource(recipe: recipe) {
      try source.refuse(recipeOptions.given + calibration.givenRidges)
    } else {
      try recipeOptions.check(metric: calibration.calibration != nil)
    }
  }

  func run() throws {
    Relaunch.withBetterKernels()
    let checkpoint = try sourceOptions.open(model)
    let statistics = try calibration.statistics()
    let maskFile = try mask.file()
    let source = try RecipeSource(recipe: recipe)
    let recipe = try source?.recipe() ?? recipeOptions.recipe(calibration, statistics, maskFile)
    let output = try StageOutput(output, outputOptions, inputs: [model] + checkpoint.files)
    let display = ProgressDisplay(work.progress)
    let pipeline = try ConversionPipeline(
      checkpoint, recipe: recipe, statistics: statistics, mask: maskFile, options: work.options(display), from: source)
    let profile = StageFile.Profile(
      source: model, part: part, recipe: recipe, sourceDType: try pipeline.sourceDType,
      network: try pipeline.profile(part: part))
    display.clear()
    try output.write(StageFile.encode(profile))
  }
}

extension SourceNetwork.Part: ExpressibleByArgument {
  public init?(argument: String) {
    let numbers = argument.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
    guard numbers.count == 2, let index = numbers[0], let count = numbers[1] else { return nil }
    self.init(index: index, count: count)
  }
}
