import TensorNetworks

/// Bonds of a group on their way down, one single-bond step after the other.
struct SqueezeState: Equatable {
  let gauge: Gauge
  private(set) var bonds: [Int]
  /// Squared relative error bound, summed over the group's members.
  private(set) var squaredError = 0.0
  /// Stored numbers of one member.
  private(set) var parameters: Int

  init(full group: SqueezeGroup, gauge: Gauge) { self.init(group, bonds: group.shape.fullBonds, gauge: gauge) }

  /// Errors count from `bonds` on.
  init(_ group: SqueezeGroup, bonds: [Int], gauge: Gauge) {
    self.gauge = gauge
    self.bonds = bonds
    parameters = group.shape.storedCount(bonds: bonds, gauge: gauge)
  }

  /// Lowering one bond by one.
  struct Step: Equatable {
    let bond: Int
    /// Growth of `squaredError`.
    let squaredErrorGrowth: Double
    /// Stored numbers saved in every member.
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
    let saved = saved(by: group.shape, at: bond, left: left, right: right)
    let cost =
      switch criterion {
      case .errorPerParameter: group.errorPerParameter(growth, saved: saved)
      case .error: (squaredError + growth).squareRoot() - squaredError.squareRoot()
      }
    return Step(bond: bond, squaredErrorGrowth: growth, saved: saved, cost: cost)
  }

  /// The difference of two `MPOShape.storedCount`, which is never below 1.
  private func saved(by shape: MPOShape, at bond: Int, left: Int, right: Int) -> Int {
    let elements = left * shape.siteDimensions[bond] + shape.siteDimensions[bond + 1] * right
    return switch gauge {
    case .compact: elements - (2 * bonds[bond] - 1)
    case .canonical: elements
    case .spectral: elements + (bond == shape.centralBond ? 1 : 0)
    }
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
