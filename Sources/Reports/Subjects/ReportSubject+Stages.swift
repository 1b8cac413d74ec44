import Conversion
import Recipes
import Squeezing
import TensorNetworks

extension ReportSubject {
  /// A plan, with the errors that it expects.
  /// - Throws: `ReportError.contradiction`.
  public init(_ file: StageFile.Plan, path: String) throws {
    let plan = file.plan
    try Self.check(plan.layers.map { ($0.name, $0.split) }, path)
    self.init(
      kind: .plan, path: path, parametersBefore: plan.parametersBefore,
      parametersAfter: plan.parametersAfter,
      matrices: plan.layers.map { MatrixFigures($0, file.recipe) })
    recipe = file.recipe
    guard !file.recipe.hasMetric else { return }
    let cores = matrices.filter { $0.state == .cores }
    let largest = cores.compactMap(\.norm).max() ?? 0
    guard largest > 0, cores.allSatisfy({ $0.relativeError != nil }) else { return }
    let energies = cores.map { (($0.norm ?? 0) / largest) * (($0.norm ?? 0) / largest) }
    let lost = zip(cores, energies).reduce(0) { $0 + ($1.0.relativeError ?? 0) * ($1.0.relativeError ?? 0) * $1.1 }
    relativeError = (lost / energies.reduce(0, +)).squareRoot()
  }

  /// The matrices of a profile, before any plan.
  /// - Throws: `ReportError.contradiction`.
  public init(_ file: StageFile.Profile, path: String) throws {
    let network = file.network
    try Self.check(network.layers.map { ($0.name, $0.split) }, path)
    self.init(
      kind: .profile, path: path, parametersBefore: network.parameters,
      parametersAfter: network.parameters - network.tiedParameters,
      matrices: network.layers.map {
        MatrixFigures(
          name: $0.name, rows: $0.rows, columns: $0.columns, state: .dense,
          stored: Double($0.denseParameterCount))
      })
  }

  /// Sizes from a file that can't be would overflow.
  private static func check(_ layers: [(name: String, split: MatrixSplit)], _ path: String) throws {
    if let layer = layers.first(where: { !$0.split.fits }) {
      throw ReportError.contradiction(path: path, matrix: layer.name)
    }
  }
}

extension MatrixFigures {
  fileprivate init(_ layer: SqueezePlan.Layer, _ recipe: ConversionRecipe) {
    self.init(
      name: layer.name, rows: layer.rows, columns: layer.columns,
      state: layer.bonds == nil ? .dense : .cores,
      stored: Double(layer.parameters))
    norm = layer.norm
    guard let bonds = layer.bonds else { return }
    if recipe.hasMetric {
      metricError = layer.relativeErrorBound
    } else {
      relativeError = layer.relativeErrorBound
    }
    svdError = layer.svdRelativeError
    entropies = layer.entropies
    guard bonds.count == layer.shape.siteCount - 1 else { return }
    chains = [
      Chain(
        name: layer.link ?? layer.name, shape: layer.shape, bonds: bonds,
        gauge: layer.gauge.rawValue, encodings: "",
        range: layer.link == nil ? nil : "a range",
        hasBases: recipe.usesBases && !layer.shape.isFactored)
    ]
  }
}
