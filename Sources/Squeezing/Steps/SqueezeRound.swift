import TensorNetworks

/// One round of a squeeze that goes down a little at a time: the network as it is, and where its bonds go next.
///
/// Errors count from the network as it is, whatever was done to it before: with fine-tuning in between there is no other
/// reference.
public struct SqueezeRound: Sendable {
  /// A matrix as it is at the beginning of the round.
  public struct Layer: Sendable {
    /// Sides, norm and spectra as they are now. A matrix that is kept as cores has as many values at each bond as the
    /// bond.
    public let profile: LayerProfile
    /// The bonds it has; nil while it is dense.
    public let bonds: [Int]?
    /// No bond is lowered below it.
    public let minimumBond: Int

    /// A matrix as its profile describes it, with its bonds; nil while it is dense.
    public init(profile: LayerProfile, bonds: [Int]?, minimumBond: Int = 1) {
      self.profile = profile
      self.bonds = bonds
      self.minimumBond = minimumBond
    }
  }

  /// Where the bonds go.
  public struct Plan: Sendable, Equatable {
    /// For each layer its bonds; nil where it stays dense.
    public let bonds: [[Int]?]
    /// Numbers that the layers are stored with at these bonds.
    public let parameters: Int
    /// Upper bound of the relative Frobenius error of all layers together, against what they are now.
    public let relativeErrorBound: Double
  }

  /// The matrices as they are at the beginning of the round.
  public let layers: [Layer]
  private let groups: [SqueezeGroup]
  private let starts: [[Int]?]
  private let floors: [Int]
  private let criterion: SqueezeCriterion
  private let gauge: Gauge

  /// - Parameters:
  ///   - layers: the matrices as they are.
  ///   - ties: for each group of tied matrices, the indices of its layers. Where tied matrices have different bonds,
  ///     they all go on from the lowest.
  ///   - criterion: which bond falls next.
  ///   - gauge: what matrices that are cores are, and will be, stored as.
  /// - Throws: `SqueezeError.tiedShapesDiffer`; `.profileLacks` for a layer without spectra.
  public init(
    _ layers: [Layer], ties: [[Int]] = [], criterion: SqueezeCriterion = .errorPerParameter, gauge: Gauge = .compact
  ) throws {
    for tie in ties {
      for member in tie where !layers[member].profile.hasSameSides(as: layers[tie[0]].profile) {
        throw SqueezeError.tiedShapesDiffer(layers[tie[0]].profile.name, layers[member].profile.name)
      }
    }
    self.layers = layers
    self.criterion = criterion
    self.gauge = gauge
    let tied = Set(ties.joined())
    let members =
      (ties.filter { !$0.isEmpty } + layers.indices.filter { !tied.contains($0) }.map { [$0] })
      .sorted { $0[0] < $1[0] }
    let profiles = layers.map(\.profile)
    groups = try members.map { try SqueezeGroup(members: $0, of: profiles) }
    floors = members.map { $0.map { layers[$0].minimumBond }.max() ?? 1 }
    starts = members.map { members in
      let bonds = members.compactMap { layers[$0].bonds }
      guard let first = bonds.first else { return nil }
      let lowest = bonds.dropFirst().reduce(first) { zip($0, $1).map { min($0, $1) } }
      return profiles[members[0]].shape.limitedBonds(lowest)
    }
  }

  /// Numbers that the layers are stored with as they are.
  public var parameters: Int {
    layers.reduce(0) { sum, layer in
      sum
        + (layer.bonds.map { layer.profile.shape.storedCount(bonds: $0, gauge: gauge) }
          ?? layer.profile.denseParameterCount)
    }
  }

  /// The cheapest steps, one bond lowered by one at a time, until at least `saving` parameters are saved; as far as the
  /// bonds go where that is less.
  /// - Returns: nil when nothing can be saved at all.
  public func plan(saving: Int) -> Plan? {
    var squeezing = DimensionSqueezing(
      groups: groups, criterion: criterion, gauge: gauge, minimumBonds: floors, starts: starts)
    let before = parameters
    _ = squeezing.squeeze(to: before - saving)
    guard squeezing.parameters < before else { return nil }
    var bonds: [[Int]?] = Array(repeating: nil, count: layers.count)
    for (index, group) in groups.enumerated() {
      for member in group.members { bonds[member] = squeezing.bonds(of: index) }
    }
    var squaredError = 0.0
    var squaredNorm = 0.0
    let largest = layers.map(\.profile.norm).max() ?? 0
    for (layer, bonds) in zip(layers, bonds) where layer.profile.norm > 0 {
      // Squares of norms may vanish or overflow, those of their quotients do no harm.
      let norm = layer.profile.norm / largest
      squaredNorm += norm * norm
      let error = norm * (bonds.flatMap { layer.profile.relativeErrorBound(bonds: $0) } ?? 0)
      squaredError += error * error
    }
    return Plan(
      bonds: bonds, parameters: squeezing.parameters,
      relativeErrorBound: squaredNorm > 0 ? (squaredError / squaredNorm).squareRoot() : 0)
  }
}
