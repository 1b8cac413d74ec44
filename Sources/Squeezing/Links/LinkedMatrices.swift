import TensorNetworks

/// The layers of a network that a link names, with the curves of what each becomes alone.
struct LinkedMatrices {
  /// How much less error linked matrices must have: where the errors are nearly equal they do not say which way is better
  /// for the model.
  private static let margin = 1.03

  let profile: LinkProfile
  /// Indices into the network's layers.
  let members: [Int]

  /// - Throws: `SqueezeError.inconsistentProfile` for a link that does not fit the layers, or that names one of `tied` or
  ///   of another link.
  static func find(in network: NetworkProfile, tied: Set<Int>) throws -> [LinkedMatrices] {
    let places = network.places
    var taken = tied
    return try (network.links ?? []).map { link in
      let members = link.members.compactMap { places[Array($0.utf8)] }
      guard link.isConsistent(members.map { network.layers[$0] }), members.allSatisfy({ taken.insert($0).inserted })
      else { throw SqueezeError.inconsistentProfile(layer: link.name) }
      return LinkedMatrices(profile: link, members: members)
    }
  }

  /// What the operator may be, of every rank, for a curve.
  /// - Parameters:
  ///   - weights: for each layer, what its squared error counts.
  func points(
    of layers: [LayerProfile], weights: [Double], minimumBond: Int, alignment: BondAlignment, gauges: [Gauge],
    rounding: RoundingError
  ) -> [StructureCurve.Point] {
    guard let sides = profile.sides(of: members.map { layers[$0] }) else { return [] }
    let shape = MPOShape.lowRank(rows: sides.rows, columns: sides.columns)
    let counts = members.map { member in
      let norm = FormErrors(of: layers[member], rounding: rounding).norm
      return weights[member] * norm * norm
    }
    let full = shape.fullBonds[0]
    return gauges.flatMap { gauge in
      let rounding = rounding.relativeError(gauge: gauge, sites: 2)
      return StructureCurve.ranks(from: minimumBond, to: full, alignment: alignment).map { rank in
        let error =
          zip(counts, profile.squaredErrors).reduce(0) { $0 + $1.0 * ($1.1[rank] + rounding * rounding) }
          * Self.margin
        let form = OperatorForm(shape: shape, bonds: [rank], gauge: gauge)
        return StructureCurve.Point(size: form.storedCount, squaredError: error, form: form)
      }
    }
  }

  /// The relative error of a member in the operator of a form, of truncation and rounding.
  func relativeError(of member: Int, _ form: OperatorForm, rounding: RoundingError) -> Double {
    let rounding = rounding.relativeError(gauge: form.gauge, sites: 2)
    return (profile.squaredErrors[member][form.bonds[0]] + rounding * rounding).squareRoot()
  }
}

extension NetworkProfile {
  /// The indices of the layers by the bytes of their names.
  var places: [[UInt8]: Int] {
    Dictionary(layers.enumerated().map { (Array($1.name.utf8), $0) }, uniquingKeysWith: { first, _ in first })
  }
}
