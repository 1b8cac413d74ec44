import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Recipes

/// Where a command takes its recipe from, when not from its options.
enum RecipeSource {
  /// What 'mpo plan' wrote.
  case plan(String)
  /// YAML.
  case file(String)
  /// An MPO checkpoint.
  case checkpoint(String)

  /// - Throws: `ValidationError` for more than one.
  init?(plan: String? = nil, recipe: String?, like: String? = nil) throws {
    let given = [plan.map(Self.plan), recipe.map(Self.file), like.map(Self.checkpoint)].compactMap(\.self)
    if given.count > 1 {
      throw ValidationError("Give only one of \(given.map(\.option).joined(separator: ", ")): each is a whole recipe.")
    }
    guard let first = given.first else { return nil }
    self = first
  }

  var option: String {
    switch self {
    case .plan: "--plan"
    case .file: "--recipe"
    case .checkpoint: "--like"
    }
  }

  var path: String {
    switch self {
    case .plan(let path), .file(let path), .checkpoint(let path): path
    }
  }

  /// - Throws: `ValidationError` when options say what the recipe says.
  func refuse(_ given: [String]) throws {
    guard let first = given.first else { return }
    let remedy =
      switch self {
      case .plan: "the plan decides it; give it to 'mpo profile' or 'mpo plan'"
      case .file: "write it into the recipe"
      case .checkpoint: "print the recipe with 'mpo inspect --recipe', change it and pass it with --recipe"
      }
    throw ValidationError("\(RecipeOption.name(of: first)) has no effect with \(option): \(remedy).")
  }

  /// Reads the recipe of a file or a checkpoint.
  func recipe() throws -> ConversionRecipe {
    switch self {
    case .plan(let path): try Self.planFile(path).recipe
    case .file(let path):
      try ConversionRecipe(yaml: String(decoding: readFile(path), as: UTF8.self), path: path)
    case .checkpoint(let path): try Self.recipe(ofCheckpointAt: path)
    }
  }

  private static func recipe(ofCheckpointAt path: String) throws -> ConversionRecipe {
    let checkpoint = try MPOCheckpoint(path: path)
    if checkpoint.manifest.squeeze != nil {
      warn(
        "\(escaped(path, limit: 4096)) was squeezed after its conversion; its recipe makes the checkpoint before the squeeze"
      )
    }
    return try Conversion.recipe(of: checkpoint)
  }

  static func planFile(_ path: String) throws -> StageFile.Plan {
    try StageFile.decode(readFile(path), as: StageFile.Plan.self, format: StageFile.Plan.formatName, path: path)
  }

  /// What to do about statistics that are not those of the recipe.
  func error(for mismatch: StatisticsMismatch) -> ConversionError {
    let made =
      switch self {
      case .plan: "the plan was made"
      case .file: "the recipe was made"
      case .checkpoint: "the checkpoint was made"
      }
    let reason =
      switch mismatch {
      case .missing(let expected): "\(made) with \(expected.text): pass the same file with --calibration"
      case .differs(let path, let sha256, let expected):
        "\(made) with \(expected.text), but the SHA-256 of \(escaped(path, limit: 4096)) is \(sha256): pass the same "
          + "file with --calibration"
      case .unexpected(let path, let sha256):
        switch self {
        case .plan: "\(made) without statistics: leave out --calibration, or give it to 'mpo profile'"
        case .file:
          "\(made) without statistics: leave out --calibration, or write 'metric: {statistics_sha256: \(sha256)}' for "
            + "\(escaped(path, limit: 4096)) into it"
        case .checkpoint: "\(made) without statistics: leave out --calibration"
        }
      }
    return .stageFile(path: path, reason: reason)
  }
}

extension RecipeConflict {
  /// The same, of options.
  var validationError: ValidationError { ValidationError(text(naming: RecipeOption.name) + ".") }
}
