import Recipes
import Squeezing
import TensorNetworks

/// A recipe as the command that follows it.
enum RecipeCommand {
  /// nil for a recipe that the options can't say; its YAML can.
  static func text(of recipe: ConversionRecipe) -> String? {
    guard let options = options(of: recipe) else { return nil }
    return (["mpo convert MODEL -o OUT.mpo"] + options).joined(separator: " ")
  }

  private static func options(of recipe: ConversionRecipe) -> [String]? {
    let plain = ConversionRecipe()
    var options: [String] = []
    switch recipe.budget {
    case .ratio(let ratio): options.append("--ratio \(ratio)")
    case .matrixRatio(let ratio): options.append("--matrix-ratio \(ratio)")
    case .bytes(let limit): options.append("--bytes \(limit)")
    case .matrixBytes(let limit): options.append("--matrix-bytes \(limit)")
    case .maximumError(let error): options.append("--max-error \(error)")
    case .bond(let bond): options.append("--bond \(bond)")
    case .lossless: options.append("--lossless")
    case nil: return nil
    }
    if let metric = recipe.metric {
      options.append("--calibration STATISTICS")
      if let ridge = metric.inputRidge { options.append("--input-ridge \(ridge)") }
      if let ridge = metric.outputRidge { options.append("--output-ridge \(ridge)") }
    }
    if let mask = recipe.mask {
      options.append(mask.source == .zeros ? "--mask zeros" : "--mask MASK")
      if mask.weights != .sides { options.append("--mask-weights \(mask.weights.rawValue)") }
    }
    let selection = recipe.selection
    options +=
      selection.include.map { "--include \(quoted($0))" }
      + selection.exclude.map { "--exclude \(quoted($0))" }
    if selection.convolutions { options.append("--convolutions") }
    if let experts = selection.experts { options.append(experts ? "--experts" : "--no-experts") }
    if selection.sites != plain.selection.sites { options.append("--sites \(selection.sites)") }
    options += selection.shapes.map { "--shape \(quoted("\($0.glob)=\($0.shape)"))" }
    if recipe.depth != plain.depth { options.append("--sites \(recipe.depth)") }
    if recipe.criterion != plain.criterion {
      options.append("--criterion \(recipe.criterion.rawValue)")
    }
    guard let links = links(of: recipe) else { return nil }
    options += links
    options += recipe.ties.map { "--tie \(quoted($0))" }
    if recipe.minimumBond != plain.minimumBond {
      options.append("--min-bond \(recipe.minimumBond)")
    }
    if case .multiples(let number) = recipe.alignment { options.append("--align \(number)") }
    if !writesItself(recipe) { options.append("--structure \(recipe.structure.rawValue)") }
    if recipe.basis != plain.basis { options.append("--basis \(recipe.basis.rawValue)") }
    options += recipe.spaces.map { rule in
      "--basis \(quoted("\(rule.glob)=\(rule.side.map { "\($0.rawValue):" } ?? "")\(rule.space)"))"
    }
    if recipe.gauge != plain.gauge { options.append("--gauge \(recipe.gauge.rawValue)") }
    if let dtype = recipe.dtype { options.append("--dtype \(dtype.rawValue.lowercased())") }
    if let central = recipe.central { options.append("--central \(central.rawValue)") }
    options += recipe.encodings.map { rule in
      "--encode \(quoted("\(rule.cores.map { "\($0.rawValue):" } ?? "")\(rule.glob)=\(rule.encoding)"))"
    }
    if recipe.pack { options.append("--pack") }
    return options
  }

  /// Whether the other options have the structure follow.
  private static func writesItself(_ recipe: ConversionRecipe) -> Bool {
    var other = recipe
    other.structure = .auto
    other.chooseStructure(
      given: Set(
        (recipe.selection.sites == TensorSelection().sites ? [] : ["selection.sites"])
          + (recipe.selection.shapes.isEmpty ? [] : ["selection.shapes"])))
    return other.structure == recipe.structure
  }

  private static func links(of recipe: ConversionRecipe) -> [String]? {
    var options: [String] = []
    for rule in recipe.links {
      switch (rule.layers, rule.shares) {
      case (let layers?, nil): options.append("--link-layers \(quoted("\(rule.glob)=\(layers)"))")
      case (nil, let side?): options.append("--link \(quoted("\(rule.glob)=\(side.rawValue)"))")
      case (nil, nil) where !rule.glob.contains("="): options.append("--link \(quoted(rule.glob))")
      default: return nil
      }
    }
    options += recipe.sharedCentres.map { "--share-central \(quoted("\($0.glob)=\($0.centres)"))" }
    // One rank is for all of them.
    guard Set(recipe.sharedCentres.map(\.residualRank)).count <= 1 else { return nil }
    if let rank = recipe.sharedCentres.first?.residualRank { options.append("--residual-rank \(rank)") }
    return options
  }

  /// As a shell reads it.
  static func quoted(_ text: String) -> String {
    "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''")
      + "'"
  }
}
