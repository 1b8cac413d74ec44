import Checkpoints
import Files
import Recipes

/// The parts of a recipe that people look for first, a line each; `mpo inspect --recipe` prints all of it.
enum RecipeText {
  static func text(of recipe: ConversionRecipe) -> String {
    var parts = [recipe.budget.map(\.description) ?? "no budget", "structure \(recipe.structure.rawValue)"]
    parts += ["criterion \(recipe.criterion.rawValue)", "gauge \(recipe.gauge.rawValue)"]
    if let dtype = recipe.dtype { parts.append("cores \(dtype.rawValue)") }
    if let central = recipe.central { parts.append("central cores \(central.rawValue)") }
    parts += recipe.encodings.map {
      "\($0.cores.map { "\($0.rawValue) " } ?? "")cores of \(escaped($0.glob)) \($0.encoding)"
    }
    if recipe.pack { parts.append("packed") }
    var text = "recipe: \(parts.joined(separator: ", "))\n"
    if let metric = recipe.metric {
      text += "metric: \(escaped(metric.description ?? "statistics", limit: 4096))"
      text += " (SHA-256 \(escaped(String(metric.sha256.prefix(12))))…)\n"
    }
    if let mask = recipe.mask {
      let source = if case .file(let sha256) = mask.source { "SHA-256 \(sha256.prefix(12))…" } else { "zeros" }
      text += "mask: \(source)" + (recipe.metric == nil ? ", weights of \(mask.weights.rawValue)\n" : "\n")
    }
    return text
  }
}
