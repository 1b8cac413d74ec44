import Squeezing
import TensorNetworks

/// Dimension squeezing the long way, to compare with: every admissible step of every group is looked at again before
/// each step, with errors and parameters counted from the definition.
struct GreedySqueeze {
  let layers: [LayerProfile]
  let groups: [[Int]]
  let criterion: SqueezeCriterion
  let gauge: Gauge
  var minimumBond = 1
  /// Of each group; nil while it is dense.
  private(set) var bonds: [[Int]?]

  init(
    _ layers: [LayerProfile], groups: [[Int]], criterion: SqueezeCriterion, gauge: Gauge = .compact,
    minimumBond: Int = 1
  ) {
    self.layers = layers
    self.groups = groups
    self.criterion = criterion
    self.gauge = gauge
    self.minimumBond = minimumBond
    bonds = groups.map { criterion == .error ? layers[$0[0]].shape.fullBonds : nil }
  }

  /// What all matrices take, each dense where that is smaller.
  var parameters: Int { groups.indices.reduce(0) { $0 + stored(bonds[$1], $1) } }

  /// Steps until the matrices have at most `allowed` parameters; false when there is no step left.
  mutating func squeeze(to allowed: Int) -> Bool {
    while parameters > allowed {
      var best: (cost: Double, group: Int, bonds: [Int])?
      for group in groups.indices {
        for (cost, next) in steps(group) where cost < best?.cost ?? .infinity { best = (cost, group, next) }
      }
      guard let best else { return false }
      if bonds[best.group] == nil {
        // Straight from dense, but no further than the budget asks for.
        let others = parameters - stored(nil, best.group)
        let enough = path(best.group).first { others + stored($0, best.group) <= allowed }
        let full = others + stored(best.bonds, best.group)
        bonds[best.group] = full < allowed ? enough ?? best.bonds : best.bonds
      } else {
        bonds[best.group] = best.bonds
      }
    }
    return true
  }

  /// The bonds of each layer, nil where it stays dense.
  var layerBonds: [[Int]?] {
    var result: [[Int]?] = Array(repeating: nil, count: layers.count)
    for (group, members) in groups.enumerated() {
      guard let bonds = bonds[group], count(bonds, group) < dense(group) else { continue }
      for member in members { result[member] = bonds }
    }
    return result
  }

  private func dense(_ group: Int) -> Int { layers[groups[group][0]].rows * layers[groups[group][0]].columns }

  /// `Σ d_{k-1} i_k j_k d_k` of one member, without `Σ d_k²` in the gauge compact, with the singular values in the
  /// gauge spectral.
  private func count(_ bonds: [Int], _ group: Int) -> Int {
    let shape = layers[groups[group][0]].shape
    let ends = [1] + bonds + [1]
    let elements = (0..<shape.siteCount).reduce(0) {
      $0 + ends[$1] * shape.rowFactors[$1] * shape.columnFactors[$1] * ends[$1 + 1]
    }
    return switch gauge {
    case .compact: elements - bonds.map { $0 * $0 }.reduce(0, +)
    case .canonical: elements
    case .spectral: elements + bonds[max(1, shape.centralIndex) - 1]
    }
  }

  private func stored(_ bonds: [Int]?, _ group: Int) -> Int {
    groups[group].count * min(dense(group), bonds.map { count($0, group) } ?? .max)
  }

  /// The squared relative error bounds of the members, added up.
  private func squaredError(_ bonds: [Int], _ group: Int) -> Double {
    groups[group].reduce(0) { sum, member in
      let layer = layers[member]
      guard layer.norm > 0, let spectra = layer.spectra?.spectra else { return sum }
      let discarded = zip(spectra, bonds).flatMap { $0.dropFirst($1) }
      return sum + discarded.map { ($0 / layer.norm) * ($0 / layer.norm) }.sorted().reduce(0, +)
    }
  }

  /// The steps open to a group with their costs: from dense, or a single bond lowered by one to what is still a chain.
  private func steps(_ group: Int) -> [(cost: Double, bonds: [Int])] {
    guard let bonds = bonds[group] else {
      var best: (cost: Double, bonds: [Int])?
      for next in path(group) where count(next, group) < dense(group) {
        let saved = Double(dense(group) - count(next, group)) * Double(groups[group].count)
        let cost = squaredError(next, group) * Double(dense(group)) / saved
        if cost <= best?.cost ?? .infinity { best = (cost, next) }
      }
      return best.map { [$0] } ?? []
    }
    return singleSteps(bonds, group)
  }

  private func singleSteps(_ bonds: [Int], _ group: Int) -> [(cost: Double, bonds: [Int])] {
    let shape = layers[groups[group][0]].shape
    return bonds.indices.compactMap { bond in
      var next = bonds
      next[bond] -= 1
      guard next[bond] >= minimumBond, shape.limitedBonds(next) == next else { return nil }
      let (before, after) = (squaredError(bonds, group), squaredError(next, group))
      switch criterion {
      case .error: return (after.squareRoot() - before.squareRoot(), next)
      case .errorPerParameter:
        let saved = (count(bonds, group) - count(next, group)) * groups[group].count
        return ((after - before) * Double(dense(group)) / Double(saved), next)
      }
    }
  }

  /// The states of a group on its own way down, from full bonds.
  private func path(_ group: Int) -> [[Int]] {
    var states = [layers[groups[group][0]].shape.fullBonds]
    while let step = singleSteps(states[states.count - 1], group).min(by: { $0.cost < $1.cost }) {
      states.append(step.bonds)
    }
    return states
  }
}
