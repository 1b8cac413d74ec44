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
    /// Upper bound of the relative Frobenius error. In a metric: the relative error in it that is reckoned with, which is
    /// that of a factorisation with as many parameters.
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
  ///   - structure: what a matrix may become. Anything but `mpo`, and any network with a metric, is planned by the
  ///     convex hulls of error against parameters, with the criterion error per parameter.
  ///   - minimumBond: no bond is lowered below it (where the shape allows as much).
  /// - Throws: `SqueezeError` for a ratio that can't be reached, with the smallest that can, for inconsistent profiles
  ///   and for ties that do not fit together.
  public init(
    _ network: NetworkProfile, budget: Budget, criterion: SqueezeCriterion = .errorPerParameter,
    ties: [[Int]] = [], minimumBond: Int = 1, structure: Structure = .mpo
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
    let forms =
      try network.isPlannedByHulls(structure, budget)
      ? Self.formsByHulls(network, groups, budget, structure, minimumBond)
      : Self.formsBySteps(network, groups, budget, criterion, minimumBond)

    self.layers = zip(layers, forms).map { layer, form in
      let parameters = form.map { $0.shape.parameterCount(bonds: $0.bonds) } ?? layer.denseParameterCount
      return Layer(
        name: layer.name, rows: layer.rows, columns: layer.columns, shape: form?.shape ?? layer.shape,
        bonds: form?.bonds, parameters: parameters, relativeErrorBound: form.map(layer.plannedError) ?? 0,
        svdRelativeError: layer.svdRelativeError(parameters: parameters),
        entropies: form.map { $0.shape == layer.shape } ?? true
          ? layer.spectra.entanglementEntropies
          : [
            SingularSpectra([layer.singularValues]).entanglementEntropies[0]
          ], norm: layer.norm)
    }
    self.budget = budget.description
    self.criterion = criterion
    parametersBefore = network.parameters
    parametersAfter = self.layers.reduce(network.denseParameters) { $0 + $1.parameters }
  }
}

extension SqueezePlan {
  /// Single-bond steps: the published way, for MPOs in the Frobenius norm.
  private static func formsBySteps(
    _ network: NetworkProfile, _ groups: [[Int]], _ budget: Budget, _ criterion: SqueezeCriterion, _ minimumBond: Int
  ) throws -> [StructureCurve.Form?] {
    let layers = network.layers
    var bonds: [[Int]?] = Array(repeating: nil, count: layers.count)
    var squeezing = DimensionSqueezing(
      groups: groups.map { SqueezeGroup(members: $0, of: layers) }, criterion: criterion, minimumBond: minimumBond)
    func takeBonds() {
      for (index, group) in groups.enumerated() { for member in group { bonds[member] = squeezing.bonds(of: index) } }
    }
    switch budget {
    case .ratio(let ratio):
      guard squeezing.squeeze(to: network.matrixParameters(forRatio: ratio)) else {
        throw network.outOfReach(ratio, smallest: squeezing.parameters)
      }
      takeBonds()
    case .maximumError(let error):
      squeezing.squeezeEach(toRelativeError: error, layers: layers)
      takeBonds()
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
    return zip(layers, bonds).map { layer, bonds in bonds.map { StructureCurve.Form(shape: layer.shape, bonds: $0) } }
  }

  /// The structure of every matrix chosen together with the budget.
  private static func formsByHulls(
    _ network: NetworkProfile, _ groups: [[Int]], _ budget: Budget, _ structure: Structure, _ minimumBond: Int
  ) throws -> [StructureCurve.Form?] {
    let layers = network.layers
    let weights = network.errorWeights
    let curves = groups.map {
      StructureCurve(members: $0, of: layers, structure: structure, weights: weights, minimumBond: minimumBond)
    }
    var selection = StructureSelection(curves)
    switch budget {
    case .ratio(let ratio):
      guard selection.select(to: network.matrixParameters(forRatio: ratio)) else {
        throw network.outOfReach(ratio, smallest: selection.parameters)
      }
    case .maximumError(let error):
      // The least of the members' limits, for each member.
      selection.select(
        withinErrors: groups.map { group in
          let limits = group.map { weights[$0] * layers[$0].squaredNorm * error * error }
          return limits.min() ?? 0
        })
    case .bond, .lossless: break
    }
    var forms: [StructureCurve.Form?] = Array(repeating: nil, count: layers.count)
    for (index, group) in groups.enumerated() { for member in group { forms[member] = selection.form(of: index) } }
    return forms
  }
}

extension NetworkProfile {
  /// Single-bond steps are for MPOs in the Frobenius norm; bonds given outright need no plan.
  fileprivate func isPlannedByHulls(_ structure: Structure, _ budget: Budget) -> Bool {
    switch budget {
    case .bond, .lossless: false
    case .ratio, .maximumError: structure != .mpo || layers.contains { $0.metricSingularValues != nil }
    }
  }

  /// How much of the whole ratio is left for the matrices.
  fileprivate func matrixParameters(forRatio ratio: Double) -> Int {
    largestParameterCount(forRatio: ratio) - denseParameters
  }

  fileprivate func outOfReach(_ ratio: Double, smallest: Int) -> SqueezeError {
    .ratioOutOfReach(asked: ratio, smallest: Double(denseParameters + smallest) / Double(max(1, parameters)))
  }

  /// What the squared error of each layer counts: 1 in a metric, which makes layers comparable. Without one, the number
  /// of elements over the squared norm; beside layers that have one, so that the mean layer counts as much.
  fileprivate var errorWeights: [Double] {
    let measured = layers.filter { $0.metricSingularValues != nil }
    let energy = measured.reduce(0) { $0 + $1.squaredNorm }
    let count = measured.reduce(0) { $0 + $1.denseParameterCount }
    let energyPerElement = count > 0 ? energy / Double(count) : 1
    return layers.map { layer in
      if layer.metricSingularValues != nil { return 1 }
      return layer.norm > 0 ? energyPerElement * Double(layer.denseParameterCount) / layer.squaredNorm : 0
    }
  }
}

extension LayerProfile {
  /// Of the whitened matrix, where there is a metric; else `‖W‖²`.
  fileprivate var squaredNorm: Double {
    metricSingularValues?.reduce(0) { $0 + $1 * $1 } ?? norm * norm
  }

  fileprivate func plannedError(_ form: StructureCurve.Form) -> Double {
    if form.shape == shape, metricSingularValues == nil { return relativeErrorBound(bonds: form.bonds) }
    let rank = form.shape.parameterCount(bonds: form.bonds) / (rows + columns)
    let tail = (metricSingularValues ?? singularValues).dropFirst(rank).reversed().reduce(0) { $0 + $1 * $1 }
    return squaredNorm > 0 ? (tail / squaredNorm).squareRoot() : 0
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
