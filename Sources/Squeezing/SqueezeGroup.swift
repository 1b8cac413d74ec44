import TensorNetworks

/// One knob of the squeeze: a matrix, or several of the same shape that are tied to have the same bonds.
struct SqueezeGroup {
  /// Indices into the network's layers.
  let members: [Int]
  let shape: MPOShape
  /// `I · J` of one member.
  let denseParameterCount: Int
  /// `energies[bond][m]`: how much the squared error of the group grows when the bond falls from m + 1 to m: the
  /// members' `λ²`, each relative to the matrix's `‖W‖²`, added up.
  let energies: [[Double]]

  /// The criterion of the same name: `growth` is of the group's squared relative error, `saved` of one member's
  /// parameters.
  func errorPerParameter(_ growth: Double, saved: Int) -> Double {
    growth * Double(denseParameterCount) / Double(saved * members.count)
  }

  init(members: [Int], of layers: [LayerProfile]) {
    self.members = members
    let first = layers[members[0]]
    shape = first.shape
    denseParameterCount = first.denseParameterCount
    energies = first.spectra.spectra.indices.map { bond in
      first.spectra.spectra[bond].indices.map { index in
        members.reduce(0) { sum, member in
          let layer = layers[member]
          let value = layer.norm > 0 ? layer.spectra.spectra[bond][index] / layer.norm : 0
          return sum + value * value
        }
      }
    }
  }
}

/// Bonds of a group on their way down, one single-bond step after the other.
struct SqueezeState: Equatable {
  var bonds: [Int]
  /// Squared relative error bound, summed over the group's members.
  var squaredError = 0.0
  /// Parameters of one member.
  var parameters: Int

  init(full group: SqueezeGroup) { self.init(group, bonds: group.shape.fullBonds) }

  /// Errors count from `bonds` on.
  init(_ group: SqueezeGroup, bonds: [Int]) {
    self.bonds = bonds
    parameters = group.shape.parameterCount(bonds: bonds)
  }

  /// Lowering one bond by one.
  struct Step: Equatable {
    let bond: Int
    /// Growth of `squaredError`.
    let squaredErrorGrowth: Double
    /// Parameters saved in every member.
    let saved: Int
    /// The value the criterion compares.
    let cost: Double
  }

  /// The step at `bond`, unless the bond is at its floor or a neighbour does not allow it to fall (a bond may not exceed
  /// the product of the next bond and the site between them).
  func step(at bond: Int, of group: SqueezeGroup, criterion: SqueezeCriterion, minimumBond: Int) -> Step? {
    let lowered = bonds[bond] - 1
    guard lowered >= max(1, minimumBond) else { return nil }
    let dimensions = group.shape.siteDimensions
    let left = bond > 0 ? bonds[bond - 1] : 1
    let right = bond + 1 < bonds.count ? bonds[bond + 1] : 1
    guard left <= dimensions[bond] * lowered, right <= dimensions[bond + 1] * lowered else { return nil }
    let growth = group.energies[bond][lowered]
    let saved = left * dimensions[bond] + dimensions[bond + 1] * right
    let cost =
      switch criterion {
      case .errorPerParameter: group.errorPerParameter(growth, saved: saved)
      case .error: (squaredError + growth).squareRoot() - squaredError.squareRoot()
      }
    return Step(bond: bond, squaredErrorGrowth: growth, saved: saved, cost: cost)
  }

  /// The cheapest step of this group; the leftmost of equals.
  func cheapestStep(of group: SqueezeGroup, criterion: SqueezeCriterion, minimumBond: Int) -> Step? {
    bonds.indices
      .compactMap { step(at: $0, of: group, criterion: criterion, minimumBond: minimumBond) }
      .min { $0.cost < $1.cost }
  }

  mutating func take(_ step: Step) {
    bonds[step.bond] -= 1
    squaredError += step.squaredErrorGrowth
    parameters -= step.saved
  }
}
