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

  /// - Throws: `SqueezeError.profileLacks` for a member without spectra.
  init(members: [Int], of layers: [LayerProfile]) throws {
    self.members = members
    let first = layers[members[0]]
    shape = first.shape
    denseParameterCount = first.denseParameterCount
    var energies = shape.fullBonds.map { Array(repeating: 0.0, count: $0) }
    for member in members {
      let layer = layers[member]
      guard let (spectra, norm) = layer.chainSpectra else {
        throw SqueezeError.profileLacks(.spectra, layer: layer.name)
      }
      guard norm > 0 else { continue }
      for (bond, spectrum) in spectra.spectra.enumerated() {
        // A matrix that is kept as cores has as many values as its bond; what lies above is nothing.
        for (index, value) in spectrum.enumerated() {
          let relative = value / norm
          energies[bond][index] += relative * relative
        }
      }
    }
    self.energies = energies
  }

  /// The criterion of the same name: `growth` is of the group's squared relative error, `saved` of one member's
  /// parameters.
  func errorPerParameter(_ growth: Double, saved: Int) -> Double {
    growth * Double(denseParameterCount) / Double(saved * members.count)
  }
}
