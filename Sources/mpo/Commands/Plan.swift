import ArgumentParser
import Checkpoints
import Conversion
import Files
import Recipes
import Reports

struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Choose the bonds of every matrix over the whole network. Needs profiles, no weights.",
    discussion: """
      The plan holds the whole recipe: that of the profile, and what the options add. 'mpo convert --plan' follows it.
      """)

  @Argument(help: "The profile that 'mpo profile' wrote, all its parts; - for stdin.")
  var profiles: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write; - for stdout.", valueName: "plan.json"))
  var output: String

  @OptionGroup(title: "Budget") var budget: BudgetOptions
  @OptionGroup(title: "Matrices") var structure: StructureOptions
  @OptionGroup(title: "Storage") var storage: StorageOptions
  @OptionGroup var done: DoneOptions
  @OptionGroup var outputOptions: OutputOptions

  private var recipeOptions: [any RecipeOptions] { [budget, structure, storage] }

  func validate() throws { try recipeOptions.check() }

  func run() throws {
    let profile = try Self.merged(Self.profiles(profiles))
    let recipe = try recipe(for: profile)
    let plan = try recipe.plan(profile.network, path: profiles[0], sourceDType: profile.sourceDType)
    if done.skipDone, self.output == "-" { throw ValidationError("--skip-done has no effect with -o -; leave it out.") }
    let content = try StageFile.encode(StageFile.Plan(plan, recipe: recipe))
    // Planning takes seconds. What is there and the same is left alone, so that nothing that follows it looks out of date.
    let isDone = try done.isDone(self.output, inputs: []) { try readFile(self.output) == content }
    if isDone { return }
    try StageOutput(output, outputOptions, inputs: profiles, replacing: done.skipDone).write(content)
    let decomposed = plan.layers.count { $0.bonds != nil }
    StandardError.write(
      "\(plan.layers.count) matrices: \(decomposed) as cores, \(plan.layers.count - decomposed) dense; "
        + "\(grouped(plan.parametersBefore)) -> \(grouped(plan.parametersAfter)) parameters "
        + "(ratio \(fixed(plan.ratio, 4)) of the checkpoint, \(fixed(plan.matrixRatio, 4)) of the matrices)\n")
  }

  /// What 'mpo profile' wrote to these files.
  static func profiles(_ paths: [String]) throws -> [(path: String, profile: StageFile.Profile)] {
    try paths.map { ($0, try profile($0)) }
  }

  private static func profile(_ path: String) throws -> StageFile.Profile {
    if path == "-" { return try readStandardInput().withUnsafeBytes { try StageFile.readProfile($0, path: path) } }
    let file = try MappedFile(path: path)
    return try file.withBytes(in: 0..<file.byteCount) { try StageFile.readProfile($0, path: path) }
  }

  /// The profile that parts make.
  static func merged(_ parts: [(path: String, profile: StageFile.Profile)]) throws -> StageFile.Profile {
    do {
      return try StageFile.merge(parts)
    } catch let difference as RecipeDifference {
      throw ConversionError.notMergeable(
        path: difference.path,
        reason: difference.text(naming: RecipeOption.name) + "; make all parts with the same options")
    }
  }

  /// The recipe of the profile and what the options add to it.
  private func recipe(for profile: StageFile.Profile) throws -> ConversionRecipe {
    var recipe = profile.recipe
    try recipeOptions.write(to: &recipe)
    // Spectra for either structure serve chains as well.
    if profile.recipe.structure == .auto, recipe.structure == .auto {
      recipe.chooseStructure(given: Set(recipeOptions.given))
    }
    // Structure and bases decided which spectra there are; what else is not a default was in the recipe of the profile.
    let (before, after, defaults) = (profile.recipe.values, recipe.values, ConversionRecipe().values)
    let decided = before.filter {
      ["structure", "basis"].contains($0.key) && recipeOptions.given.contains($0.key) || $0.value != defaults[$0.key]
    }
    if let changed = decided.keys.sorted().first(where: { after[$0] != before[$0] }) {
      let name = RecipeOption.name(of: changed)
      let found = after[changed].map { "\(name) \($0)" } ?? "without it"
      throw ConversionError.stageFile(
        path: profiles[0],
        reason: "was made with \(name) \(before[changed] ?? ""), not \(found); "
          + "leave the option out, or make the profile again")
    }
    guard recipe.budget != nil else { throw BudgetOptions.missing }
    if let conflict = recipe.conflict(given: Set(recipeOptions.given)) { throw conflict.validationError }
    return recipe
  }
}
