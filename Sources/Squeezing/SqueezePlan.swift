import TensorNetworks

/// Which bond goes where: the bonds of every matrix of a network under one budget.
public struct SqueezePlan: Sendable, Hashable, Codable {
  /// The budget and criterion, as the command line takes them.
  public let budget: String
  public let criterion: SqueezeCriterion
  /// Elements of the whole source checkpoint.
  public let parametersBefore: Int
  /// Elements of the whole converted checkpoint.
  public let parametersAfter: Int
  public let layers: [Layer]

  /// What becomes of one matrix.
  public struct Layer: Sendable, Hashable, Codable {
    public let name: String
    public let rows: Int
    public let columns: Int
    public let shape: MPOShape
    /// nil: the matrix stays dense.
    public let bonds: [Int]?
    /// Elements it is stored with.
    public let parameters: Int
    /// Upper bound of the relative Frobenius error.
    public let relativeErrorBound: Double
    /// The relative error of plain SVD with as many parameters.
    public let svdRelativeError: Double
    public let entropies: [Double]
    public let norm: Double

    enum CodingKeys: String, CodingKey {
      case name, rows, columns, shape, bonds, parameters, entropies, norm
      case relativeErrorBound = "relative_error_bound"
      case svdRelativeError = "svd_relative_error"
    }
  }

  public var ratio: Double { Double(parametersAfter) / Double(max(1, parametersBefore)) }

  enum CodingKeys: String, CodingKey {
    case budget, criterion, layers
    case parametersBefore = "parameters_before"
    case parametersAfter = "parameters_after"
  }

  /// Plans the whole network.
  ///
  /// - Parameters:
  ///   - ties: for each group of tied matrices, the indices of its layers. Tied matrices must have the same shape; they
  ///     get the same bonds. No index may be in two groups.
  ///   - minimumBond: no bond is lowered below it (where the shape allows as much).
  /// - Throws: `SqueezeError` for a ratio that can't be reached, with the smallest that can, for inconsistent profiles
  ///   and for ties that do not fit together.
  public init(
    _ network: NetworkProfile, budget: Budget, criterion: SqueezeCriterion = .errorPerParameter,
    ties: [[Int]] = [], minimumBond: Int = 1
  ) throws {
    let layers = network.layers
    for layer in layers where !layer.isConsistent { throw SqueezeError.inconsistentProfile(layer: layer.name) }
    guard network.hasConsistentTotals else { throw SqueezeError.inconsistentTotals }
    for tie in ties {
      for member in tie where !layers[member].hasSameSides(as: layers[tie[0]]) {
        throw SqueezeError.tiedShapesDiffer(layers[tie[0]].name, layers[member].name)
      }
    }
    let tied = Set(ties.joined())
    let groups =
      (ties.filter { !$0.isEmpty } + layers.indices.filter { !tied.contains($0) }.map { [$0] })
      .sorted { $0[0] < $1[0] }
      .map { SqueezeGroup(members: $0, of: layers) }

    var squeezing = DimensionSqueezing(groups: groups, criterion: criterion, minimumBond: minimumBond)
    var bonds: [[Int]?] = Array(repeating: nil, count: layers.count)
    switch budget {
    case .ratio(let ratio):
      let allowed = network.largestParameterCount(forRatio: ratio) - network.denseParameters
      guard squeezing.squeeze(to: allowed) else {
        let smallest = Double(network.denseParameters + squeezing.parameters) / Double(max(1, network.parameters))
        throw SqueezeError.ratioOutOfReach(asked: ratio, smallest: smallest)
      }
      for (index, group) in groups.enumerated() {
        for member in group.members { bonds[member] = squeezing.bonds(of: index) }
      }
    case .maximumError(let error):
      squeezing.squeezeEach(toRelativeError: error, layers: layers)
      for (index, group) in groups.enumerated() {
        for member in group.members { bonds[member] = squeezing.bonds(of: index) }
      }
    case .bond(let bond):
      for (index, layer) in layers.enumerated() {
        let limited = layer.shape.limitedBonds(layer.shape.fullBonds.map { min($0, bond) })
        let isSmaller = layer.shape.parameterCount(bonds: limited) < layer.denseParameterCount
        bonds[index] = isSmaller ? limited : nil
      }
    case .lossless:
      for (index, layer) in layers.enumerated() {
        let error = Budget.losslessTolerance * layer.norm * Double(layer.shape.siteCount - 1).squareRoot()
        bonds[index] = layer.shape.limitedBonds(layer.spectra.bonds(forError: error))
      }
    }

    self.layers = zip(layers, bonds).map { layer, bonds in
      let parameters = bonds.map(layer.shape.parameterCount) ?? layer.denseParameterCount
      return Layer(
        name: layer.name, rows: layer.rows, columns: layer.columns, shape: layer.shape, bonds: bonds,
        parameters: parameters, relativeErrorBound: bonds.map(layer.relativeErrorBound) ?? 0,
        svdRelativeError: layer.svdRelativeError(parameters: parameters),
        entropies: layer.spectra.entanglementEntropies, norm: layer.norm)
    }
    self.budget = budget.description
    self.criterion = criterion
    parametersBefore = network.parameters
    parametersAfter = self.layers.reduce(network.denseParameters) { $0 + $1.parameters }
  }
}

/// Why a network can't be planned as asked.
public enum SqueezeError: Error, Sendable, Equatable, CustomStringConvertible {
  case ratioOutOfReach(asked: Double, smallest: Double)
  case inconsistentProfile(layer: String)
  /// The parameters of the network do not add up.
  case inconsistentTotals
  case tiedShapesDiffer(String, String)

  public var description: String {
    switch self {
    case .ratioOutOfReach(let asked, let smallest):
      "ratio \(asked) can't be reached: with every bond as low as it goes the checkpoint still has "
        + "\((smallest * 1e4).rounded(.up) / 1e4) of its parameters; ask for more, or let more matrices be decomposed"
    case .inconsistentProfile(let layer):
      "the profile of '\(layer)' contradicts itself; make it anew with 'mpo profile'"
    case .inconsistentTotals:
      "the profile's parameters do not add up to those of its matrices; make it anew with 'mpo profile'"
    case .tiedShapesDiffer(let a, let b):
      "'\(a)' and '\(b)' are tied but have different shapes; tie matrices of one shape"
    }
  }
}
