import ArgumentParser
import Conversion

struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Squeeze bonds over the whole network: which bond goes where. Needs profiles only, no weights.")

  @Argument(help: "What 'mpo profile' wrote, all parts of it; - for stdin.")
  var profiles: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write; - for stdout.", valueName: "plan.json"))
  var output: String

  @OptionGroup(title: "Budget") var budget: BudgetOptions
  @OptionGroup var outputOptions: OutputOptions

  func validate() throws { _ = try budget.requiredBudget() }

  func run() throws {
    let parts = try profiles.map { path in
      (
        path,
        try StageFile.decode(
          readFile(path), as: StageFile.Profile.self, format: StageFile.Profile.formatName, path: path)
      )
    }
    let plan = try budget.plan(StageFile.merge(parts), path: profiles[0])
    try StageOutput(output, outputOptions, inputs: profiles).write(StageFile.encode(StageFile.Plan(plan)))
    let decomposed = plan.layers.count { $0.bonds != nil }
    StandardError.write(
      "\(plan.layers.count) matrices: \(decomposed) as cores, \(plan.layers.count - decomposed) dense; "
        + "\(grouped(plan.parametersBefore)) -> \(grouped(plan.parametersAfter)) parameters "
        + "(ratio \(fixed(plan.ratio, 4)))\n")
  }
}
