import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Recipes
import Reports
import Squeezing

/// What a conversion would do, in a few lines, without doing it.
struct DryRun {
  private let checkpoint: any DenseCheckpoint
  private let recipe: ConversionRecipe
  private let pipeline: ConversionPipeline
  private let jobs: Int

  init(
    _ checkpoint: any DenseCheckpoint, _ recipe: ConversionRecipe,
    _ statistics: CalibrationStatistics?,
    _ mask: MaskFile?, _ work: WorkOptions, from source: RecipeSource?
  ) throws {
    self.checkpoint = checkpoint
    self.recipe = recipe
    jobs = work.jobs
    pipeline = try ConversionPipeline(
      checkpoint, recipe: recipe, statistics: statistics, mask: mask,
      options: work.options(ProgressDisplay(.none)), passes: 1, from: source)
  }

  /// - Parameters:
  ///   - plan: to follow; nil to make one of the profiles.
  ///   - profiles: the parts of one profile; none where nothing is known of the matrices.
  ///   - parts: how many parts to show the time and memory of; nil for none.
  ///   - expectsStatistics: whether to reckon the parts as if there were statistics.
  func print(
    plan: SqueezePlan?, profiles: [String], parts: Int?, expectsStatistics: Bool
  ) throws {
    var text = "\(escaped(checkpoint.path, limit: 4096)): dry run, nothing is written\n"
    let plan = try plan ?? planned(by: profiles)
    if let plan {
      text += Summary(try pipeline.preview(plan)).lines(
        .expected, configuration: ModelConfiguration(of: checkpoint))
      if let warning = Convert.warning(of: plan, recipe, checkpoint) { warn(warning) }
    } else {
      text += try withoutPlan()
    }
    if let parts {
      let costs = try pipeline.schedule(
        parts: parts, plan, jobs: jobs, expectsStatistics: expectsStatistics)
      return try StandardOutput.write(
        text + PartSchedule(costs, jobs: jobs, rate: ConversionCost.measuredRate()).text)
    }
    let cost = try pipeline.cost()
    text +=
      "  time        about \(duration(cost.seconds(jobs: jobs, rate: ConversionCost.measuredRate())))"
    text +=
      " with \(jobs == 1 ? "1 job" : "\(jobs) jobs") on this machine, if it has nothing else to do\n"
    text += "  memory      about \(bytes(cost.memory(jobs: jobs)))\n"
    try StandardOutput.write(text)
  }

  private func planned(by paths: [String]) throws -> SqueezePlan? {
    guard !paths.isEmpty else { return nil }
    let profile = try Plan.merged(Plan.profiles(paths))
    // What the plan alone decides may differ.
    var same = recipe
    let own = profile.recipe
    (same.budget, same.structure, same.depth, same.criterion) = (
      own.budget, own.structure, own.depth, own.criterion
    )
    (same.ties, same.minimumBond, same.gauge, same.dtype) = (
      own.ties, own.minimumBond, own.gauge, own.dtype
    )
    (same.central, same.encodings, same.pack, same.alignment) = (
      own.central, own.encodings, own.pack, own.alignment
    )
    if let difference = same.difference(from: own, path: "the conversion", otherPath: paths[0]) {
      throw ConversionError.stageFile(
        path: paths[0],
        reason:
          "is not the profile of this conversion: \(difference.text(naming: RecipeOption.name)); make it with the "
          + "same options")
    }
    return try recipe.plan(profile.network, path: paths[0], sourceDType: profile.sourceDType)
  }

  private var bytesBefore: Int { checkpoint.tensors.reduce(0) { $0 + $1.byteCount } }

  /// A limit of bytes, for people.
  /// - Parameter whole: what a share is of, where that is known.
  private func limit(_ limit: Budget.ByteLimit, of whole: Int?) -> String {
    switch limit {
    case .count(let count): bytes(count)
    case .share(let share): whole.map { bytes(Int(share * Double($0))) } ?? "\(share) of their bytes"
    }
  }

  private func withoutPlan() throws -> String {
    let selected = try pipeline.selected()
    let parameters = checkpoint.tensors.reduce(0) { $0 + $1.elementCount }
    var text = """
        matrices    \(selected.matrices) to decompose, with \(grouped(selected.elements)) of \(grouped(parameters)) parameters
        budget      \(recipe.budget?.description ?? "none")

      """
    switch recipe.budget {
    case .ratio(let ratio):
      text += "  parameters  at most \(grouped(Int(Double(parameters) * ratio))) are left\n"
    case .matrixRatio(let ratio):
      text +=
        "  parameters  at most \(grouped(Int(Double(selected.elements) * ratio))) are left in the matrices\n"
    case .bytes(let limit): text += "  bytes       at most \(self.limit(limit, of: bytesBefore))\n"
    case .matrixBytes(let limit): text += "  bytes       at most \(self.limit(limit, of: nil)) for the matrices\n"
    case .maximumError, .bond, .lossless, nil: break
    }
    return text
      + "  errors      not known without a profile: make one with 'mpo profile' and pass it with --profile\n"
  }
}
