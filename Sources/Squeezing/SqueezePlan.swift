import TensorNetworks

/// Which bond goes where: the bonds of every matrix of a network under one budget.
public struct SqueezePlan: Sendable, Hashable, Codable {
  /// In words.
  public let budget: String
  /// What decides which bond falls next.
  public let criterion: SqueezeCriterion
  /// Elements of the whole source checkpoint.
  public let parametersBefore: Int
  /// Elements of the whole converted checkpoint.
  public let parametersAfter: Int
  /// Numbers of the bases that the chains share, at most; nil for none.
  public let basisParameters: Int?
  /// What becomes of each matrix, in the order of the profile.
  public let layers: [Layer]
  /// The operators whose ranges several matrices are; nil for none.
  public let links: [Link]?
  /// The central cores that several matrices share; nil for none.
  public let centres: [SharedCentre]?

  /// `parametersAfter / parametersBefore`.
  public var ratio: Double { Double(parametersAfter) / Double(max(1, parametersBefore)) }

  /// Numbers that the matrices are stored with over those they had.
  public var matrixRatio: Double {
    Double(layers.reduce(basisParameters ?? 0) { $0 + $1.parameters })
      / Double(max(1, layers.reduce(0) { $0 + $1.split.denseCount }))
  }

  enum CodingKeys: String, CodingKey {
    case budget, criterion, layers, links, centres
    case parametersBefore = "parameters_before"
    case parametersAfter = "parameters_after"
    case basisParameters = "basis_parameters"
  }

  /// Plans the whole network.
  ///
  /// - Parameters:
  ///   - network: the profiles of the matrices.
  ///   - budget: how small, or how exact, the network is to be.
  ///   - criterion: `error` takes the published single-bond steps, for chains without a metric. Everything else is
  ///     planned by the convex hulls of error against stored numbers.
  ///   - ties: for each group of tied matrices, the indices of its layers. Tied matrices must have the same split; they
  ///     get the same bonds. No index may be in two groups.
  ///   - minimumBond: no bond is lowered below it (where the shape allows as much).
  ///   - alignment: which bonds the hulls choose from; ranks of linked matrices too.
  ///   - structure: what a matrix may become.
  ///   - factorSites: of factorisations of low rank: those beyond two are square cores between the frames, in the gauge
  ///     canonical.
  ///   - gauge: what operators are stored as, and so what they count.
  ///   - rounding: of the cores' dtype. Where it is not negligible and the gauge is compact, each operator may be
  ///     stored in the gauge canonical instead, by the error of truncation and rounding together.
  ///   - elementBytes: of a plain value of a core, for a budget of bytes; nil for that of the matrix.
  /// - Throws: `SqueezeError` for a ratio that can't be reached, with the smallest that can, for profiles that are
  ///   inconsistent or lack what the structure and budget need, for ties that do not fit together, and for a least bond
  ///   above the bond that is asked for.
  public init(
    _ network: NetworkProfile, budget: Budget, criterion: SqueezeCriterion = .errorPerParameter,
    ties: [[Int]] = [], minimumBond: Int = 1, alignment: BondAlignment = .auto, structure: MatrixStructure = .chain,
    factorSites: Int = 2, gauge: Gauge = .compact, rounding: RoundingError = .negligible, elementBytes: Int? = nil
  ) throws {
    let layers = network.layers
    for layer in layers where !layer.isConsistent { throw SqueezeError.inconsistentProfile(layer: layer.name) }
    guard network.hasConsistentTotals else { throw SqueezeError.inconsistentTotals }
    for tie in ties {
      for member in tie where !layers[member].hasSameSides(as: layers[tie[0]]) {
        throw SqueezeError.tiedShapesDiffer(layers[tie[0]].name, layers[member].name)
      }
    }
    var network = network
    network.layers = layers.map(\.scaled)
    let tied = Set(ties.joined())
    let links = try LinkedMatrices.find(in: network, tied: tied)
    let centred = try CentredLayers.find(in: network, taken: tied.union(links.flatMap(\.members)), gauge: gauge)
    let fixed = Set(centred.flatMap(\.members))
    let groups =
      (ties.filter { !$0.isEmpty } + layers.indices.filter { !tied.contains($0) && !fixed.contains($0) }.map { [$0] })
      .sorted { $0[0] < $1[0] }
    let request = Request(
      network: network, groups: groups, links: links, minimumBond: minimumBond, alignment: alignment,
      structure: structure,
      factorSites: factorSites, gauge: gauge, rounding: rounding,
      fixedParameters: centred.reduce(0) { $0 + $1.parameters.reduce(0, +) },
      unit: budget.isOfBytes ? .bytes(elementBytes: elementBytes) : .numbers)
    var linked: [Int: OperatorForm] = [:]
    let chosen =
      switch budget {
      case .bond(let bond): try request.forms(bond: bond)
      case .lossless: try request.losslessForms()
      case .ratio, .matrixRatio, .bytes, .matrixBytes, .maximumError:
        try network.isPlannedBySteps(structure, criterion)
          ? request.formsBySteps(budget) : request.formsByHulls(budget, linked: &linked)
      }
    var forms: [OperatorForm?] = Array(repeating: nil, count: layers.count)
    for (group, form) in zip(groups, chosen) { for member in group { forms[member] = form } }

    var planned = layers.indices.map {
      Layer(network.layers[$0], norm: layers[$0].norm, form: forms[$0], gauge: gauge, rounding: rounding)
    }
    for (index, form) in linked {
      let shares = form.storedCount.shared(by: links[index].members.map { layers[$0].denseParameterCount })
      for (place, member) in links[index].members.enumerated() {
        planned[member] = Layer(
          network.layers[member], norm: layers[member].norm, link: links[index].profile.name, form: form,
          parameters: shares[place],
          relativeError: links[index].relativeError(of: place, form, rounding: rounding))
      }
    }
    for shared in centred {
      for (member, parameters) in zip(shared.members, shared.parameters) {
        planned[member] = Layer(
          network.layers[member], norm: layers[member].norm, centre: shared.centre.name, form: shared.form,
          parameters: parameters)
      }
    }
    self.layers = planned
    centres = centred.isEmpty ? nil : centred.map(\.centre)
    self.links = linked.isEmpty ? nil : linked.sorted { $0.key < $1.key }.map { Link(links[$0.key], form: $0.value) }
    self.budget = budget.description
    self.criterion = criterion
    parametersBefore = network.parameters
    let hasChains = self.layers.contains { $0.bonds != nil }
    basisParameters = network.basisParameters.map { hasChains ? $0 : 0 }
    parametersAfter = self.layers.reduce(network.denseParameters + (basisParameters ?? 0)) { $0 + $1.parameters }
  }
}

extension SqueezePlan {
  /// What is asked for, beside the budget. Each of its plans has a form for each group; nil: dense.
  private struct Request {
    let network: NetworkProfile
    let groups: [[Int]]
    var links: [LinkedMatrices]
    let minimumBond: Int
    let alignment: BondAlignment
    let structure: MatrixStructure
    let factorSites: Int
    let gauge: Gauge
    let rounding: RoundingError
    /// Of matrices whose form the budget does not change.
    let fixedParameters: Int
    let unit: StoredUnit

    /// Single-bond steps: the published way.
    func formsBySteps(_ budget: Budget) throws -> [OperatorForm?] {
      var squeezing = DimensionSqueezing(
        groups: try groups.map { try SqueezeGroup(members: $0, of: network.layers) }, criterion: .error, gauge: gauge,
        minimumBond: minimumBond)
      switch budget {
      case .ratio, .matrixRatio:
        guard try squeezing.squeeze(to: network.matrixSize(for: budget, .numbers) - fixedParameters) else {
          throw network.outOfReach(budget, smallest: squeezing.parameters + fixedParameters, .numbers)
        }
      case .maximumError(let error): squeezing.squeezeEach(toRelativeError: error, layers: network.layers)
      case .bond, .lossless, .bytes, .matrixBytes: break
      }
      return groups.indices.map { index in
        squeezing.bonds(of: index).map {
          OperatorForm(shape: squeezing.groups[index].shape, bonds: $0, gauge: gauge)
        }
      }
    }

    /// The structure of every matrix chosen together with the budget.
    /// - Parameter linked: by index, the forms of the links whose matrices are stored as one operator.
    func formsByHulls(_ budget: Budget, linked: inout [Int: OperatorForm]) throws -> [OperatorForm?] {
      let weights = network.errorWeights
      let gauges = rounding.gauges(for: gauge)
      let own = try groups.map {
        try StructureCurve(
          members: $0, of: network.layers, structure: structure, weights: weights, minimumBond: minimumBond,
          alignment: alignment, gauges: gauges, rounding: rounding, factorSites: factorSites, unit: unit)
      }
      let parts = partsOfLinks
      let inLinks = Set(parts.joined())
      let single = groups.indices.filter { !inLinks.contains($0) }
      let curves =
        single.map { own[$0] }
        + zip(links, parts).map { link, parts in
          StructureCurve(
            linking: parts.map { own[$0] },
            link.points(
              of: network.layers, weights: weights, minimumBond: minimumBond, alignment: alignment, gauges: gauges,
              rounding: rounding))
        }
      var points: [StructureCurve.Point]
      switch budget {
      case .ratio, .matrixRatio, .bytes, .matrixBytes:
        var selection = StructureSelection(curves)
        guard try selection.select(to: network.matrixSize(for: budget, unit) - fixedParameters) else {
          throw network.outOfReach(budget, smallest: selection.size + fixedParameters, unit)
        }
        points = curves.indices.map(selection.point)
      case .maximumError(let maximum):
        let errors = groups.map { $0.map { FormErrors(of: network.layers[$0], rounding: rounding) } }
        func smallest(_ group: Int) -> Int {
          own[group].smallest { point in
            point.form.map { form in errors[group].allSatisfy { $0.relativeError(of: form) <= maximum } } ?? true
          }
        }
        points = single.map { own[$0].points[smallest($0)] }
        for (link, parts) in zip(links, parts) {
          let places = parts.map(smallest)
          let apart = zip(parts, places).reduce(0) { $0 + own[$1.0].points[$1.1].size }
          let together = curves[points.count].points.last { point in
            point.form.map { form in
              link.members.indices.allSatisfy { link.relativeError(of: $0, form, rounding: rounding) <= maximum }
            } ?? false
          }
          points.append(
            together.flatMap { $0.size < apart ? $0 : nil }
              ?? StructureCurve.Point(size: apart, squaredError: 0, form: nil, places: places))
        }
      case .bond, .lossless: points = curves.map { $0.points[0] }
      }
      var forms: [OperatorForm?] = Array(repeating: nil, count: groups.count)
      for (group, point) in zip(single, points) { forms[group] = point.form }
      for (index, point) in points.dropFirst(single.count).enumerated() {
        if let form = point.form { linked[index] = form }
        for (group, place) in zip(parts[index], point.places) { forms[group] = own[group].points[place].form }
      }
      guard linked.isEmpty, !links.isEmpty else { return forms }
      // Apart, matrices have more points to choose from.
      var apart = self
      apart.links = []
      return try apart.formsByHulls(budget, linked: &linked)
    }

    /// The groups of each link's members, which have no others.
    private var partsOfLinks: [[Int]] {
      let places = Dictionary(groups.enumerated().map { ($1[0], $0) }, uniquingKeysWith: { first, _ in first })
      return links.map { $0.members.compactMap { places[$0] } }
    }

    /// Every bond at most `bond`; dense where that takes fewer numbers.
    func forms(bond: Int) throws -> [OperatorForm?] {
      guard minimumBond <= bond else { throw SqueezeError.minimumBondAboveBond(minimum: minimumBond, bond: bond) }
      return groups.map { group in
        let layer = network.layers[group[0]]
        let shape =
          structure == .svd
          ? .factored(rows: layer.rows, columns: layer.columns, sites: factorSites) : layer.shape
        let bonds = shape.bonds(ofRank: bond)
        let form = OperatorForm(shape: shape, bonds: bonds, gauge: gauge)
        return form.storedCount < layer.denseParameterCount ? form : nil
      }
    }

    /// Every bond at the numerical rank, the largest of the group's members; of several structures the one with the
    /// fewest numbers. In the gauge compact a matrix stays dense where padding makes its cores larger.
    func losslessForms() throws -> [OperatorForm?] {
      for layer in network.layers { try layer.require(LayerProfile.measurements(for: structure, .lossless)) }
      return groups.map { group in
        let members = group.map { network.layers[$0] }
        var forms: [OperatorForm] = []
        if structure != .svd {
          forms.append(losslessForm(members[0].shape, members.map { ($0.norm, $0.spectra) }))
        }
        if structure != .chain {
          forms.append(
            losslessForm(
              .lowRank(rows: members[0].rows, columns: members[0].columns),
              members.map { ($0.norm, $0.singularValues.map { SingularSpectra([$0]) }) }))
        }
        let count = members[0].denseParameterCount
        let smallest = forms.filter { gauge != .compact || $0.storedCount <= count }
          .min { $0.storedCount < $1.storedCount }
        // A compact form at full bonds has the very elements of the matrix: no few numbers are worth rounding them.
        let exact = forms.first { $0.bonds == $0.shape.fullBonds && $0.storedCount == count }
        guard gauge == .compact, let exact, let smallest, 64 * (count - smallest.storedCount) < count else {
          return smallest
        }
        return exact
      }
    }

    private func losslessForm(_ shape: MPOShape, _ members: [(norm: Double, spectra: SingularSpectra?)]) -> OperatorForm
    {
      var bonds = shape.fullBonds.map { min($0, minimumBond) }
      for (norm, spectra) in members {
        let error = Budget.losslessTolerance * norm * Double(shape.siteCount - 1).squareRoot()
        let needed = spectra?.bonds(forError: error) ?? shape.fullBonds
        bonds = zip(bonds, needed).map { max($0, $1) }
      }
      return OperatorForm(shape: shape, bonds: shape.limitedBonds(bonds), gauge: gauge)
    }
  }
}

extension NetworkProfile {
  fileprivate func isPlannedBySteps(_ structure: MatrixStructure, _ criterion: SqueezeCriterion) -> Bool {
    criterion == .error && structure == .chain && layers.allSatisfy { $0.metricSingularValues == nil }
  }

  /// How much a budget leaves for the matrices.
  /// - Throws: `SqueezeError.profileLacks` where the bytes of the checkpoint are not known.
  fileprivate func matrixSize(for budget: Budget, _ unit: StoredUnit) throws -> Int {
    let matrices = layers.reduce(0) { $0 + unit.size(of: $1) }
    let count: Int
    switch budget {
    case .ratio(let ratio): count = largestParameterCount(forRatio: ratio) - denseParameters
    case .matrixRatio(let ratio): count = Self.largestCount(ratio, of: matrices)
    case .bytes(let limit):
      guard let bytes, let denseBytes else {
        throw SqueezeError.profileLacks(.storage, layer: layers.first?.name ?? "")
      }
      count = limit.count(of: bytes) - denseBytes
    case .matrixBytes(let limit): count = limit.count(of: matrices)
    case .maximumError, .bond, .lossless: return matrices
    }
    // Where everything may stay dense no bases are needed.
    return count >= matrices ? count : count - basisSize(unit)
  }

  /// What the bases take.
  private func basisSize(_ unit: StoredUnit) -> Int {
    guard case .bytes(let elementBytes) = unit else { return basisParameters ?? 0 }
    return (basisParameters ?? 0) * (elementBytes ?? layers.compactMap(\.storage?.elementBytes).max() ?? 4)
  }

  fileprivate func outOfReach(_ budget: Budget, smallest: Int, _ unit: StoredUnit) -> SqueezeError {
    let smallest = smallest + basisSize(unit)
    let matrices = layers.reduce(0) { $0 + unit.size(of: $1) }
    switch budget {
    case .matrixRatio(let ratio):
      return .matrixRatioOutOfReach(asked: ratio, smallest: Double(smallest) / Double(max(1, matrices)))
    case .bytes(let limit):
      return .bytesOutOfReach(
        asked: limit, smallest: (denseBytes ?? 0) + smallest, whole: bytes ?? 0, ofMatrices: false)
    case .matrixBytes(let limit):
      return .bytesOutOfReach(asked: limit, smallest: smallest, whole: matrices, ofMatrices: true)
    case .ratio(let ratio):
      return .ratioOutOfReach(asked: ratio, smallest: Double(denseParameters + smallest) / Double(max(1, parameters)))
    case .maximumError, .bond, .lossless:
      return .ratioOutOfReach(asked: 0, smallest: Double(denseParameters + smallest) / Double(max(1, parameters)))
    }
  }

  /// What the squared error of each layer counts: 1 in a metric, which makes layers comparable. Without one, the number
  /// of elements over the squared norm; beside layers that have one, so that the mean layer counts as much.
  var errorWeights: [Double] {
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
}

extension Int {
  /// The number divided in proportion to weights; the first part takes what is left over.
  fileprivate func shared(by weights: [Int]) -> [Int] {
    let total = Double(Swift.max(1, weights.reduce(0, +)))
    var shares = weights.map { Int((Double(self) * Double($0) / total).rounded(.down)) }
    shares[0] += self - shares.reduce(0, +)
    return shares
  }
}
