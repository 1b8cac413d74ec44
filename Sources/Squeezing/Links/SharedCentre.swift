import TensorNetworks

/// Matrices of one shape whose chains, of full bonds, have one central core for all.
public struct SharedCentre: Sendable, Hashable, Codable {
  /// Of the core.
  public let name: String
  /// The names of the layers, in order.
  public let members: [String]

  public init(name: String, members: [String]) { (self.name, self.members) = (name, members) }
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
  static func find(in network: NetworkProfile, taken: Set<Int>) throws -> [CentredLayers] {
    let places = network.places
    var taken = taken
    return try (network.centres ?? []).map { centre in
      let members = centre.members.compactMap { places[Array($0.utf8)] }
      guard let first = members.first, members.count > 1, members.count == centre.members.count,
        members.allSatisfy({ network.layers[$0].hasSameSides(as: network.layers[first]) && taken.insert($0).inserted })
      else { throw SqueezeError.inconsistentProfile(layer: centre.name) }
      return CentredLayers(centre, members, network.layers[first].shape)
    }
  }

  private init(_ centre: SharedCentre, _ members: [Int], _ shape: MPOShape) {
    (self.centre, self.members) = (centre, members)
    form = OperatorForm(shape: shape, bonds: shape.fullBonds, gauge: .canonical)
    let central = shape.coreShapes(bonds: form.bonds)[shape.centralIndex].reduce(1, *)
    let auxiliary = form.storedCount - central
    parameters = members.indices.map {
      auxiliary + central / members.count + ($0 == 0 ? central % members.count : 0)
    }
  }
}
