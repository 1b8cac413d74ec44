import TensorNetworks

/// Matrices of one shape whose chains, of full bonds, have one central core for all.
public struct SharedCentre: Sendable, Hashable, Codable {
  /// Of the core.
  public let name: String
  /// The names of the layers, in order.
  public let members: [String]

  /// Of the operator of low rank that is added to each for what the shared core leaves of it; nil for none.
  public let residualRank: Int?

  /// A central core of this name for the named layers.
  public init(name: String, members: [String], residualRank: Int? = nil) {
    (self.name, self.members, self.residualRank) = (name, members, residualRank)
  }

  enum CodingKeys: String, CodingKey {
    case name, members
    case residualRank = "residual_rank"
  }
}

/// The layers of a network that a shared centre names, which the budget can't change.
struct CentredLayers {
  let centre: SharedCentre
  /// Indices into the network's layers.
  let members: [Int]
  let form: OperatorForm
  /// For each member the numbers it is stored with, the central core's divided among all.
  let parameters: [Int]

  /// - Throws: `SqueezeError.inconsistentProfile` for a centre that does not fit the layers, or that names one of `taken`.
  /// - Parameter gauge: of the residuals.
  static func find(in network: NetworkProfile, taken: Set<Int>, gauge: Gauge) throws -> [CentredLayers] {
    let places = network.places
    var taken = taken
    return try (network.centres ?? []).map { centre in
      let members = centre.members.compactMap { places[Array($0.utf8)] }
      guard let first = members.first, members.count > 1, members.count == centre.members.count,
        members.allSatisfy({ network.layers[$0].hasSameSides(as: network.layers[first]) && taken.insert($0).inserted }),
        centre.residualRank.map({ (1..<min(network.layers[first].rows, network.layers[first].columns)).contains($0) })
          ?? true
      else { throw SqueezeError.inconsistentProfile(layer: centre.name) }
      return CentredLayers(centre, members, network.layers[first].split, gauge)
    }
  }

  private init(_ centre: SharedCentre, _ members: [Int], _ split: MatrixSplit, _ gauge: Gauge) {
    (self.centre, self.members) = (centre, members)
    let shape = split.shape
    let residual = centre.residualRank.map {
      MPOShape.lowRank(rows: split.rows, columns: split.columns).storedCount(bonds: [$0], gauge: gauge)
    }
    form = OperatorForm(shape: shape, bonds: shape.fullBonds, gauge: .canonical)
    let central = shape.coreShapes(bonds: form.bonds)[shape.centralIndex].reduce(1, *)
    let own = form.storedCount - central + (residual ?? 0)
    parameters = members.indices.map {
      own + central / members.count + ($0 == 0 ? central % members.count : 0)
    }
  }
}
