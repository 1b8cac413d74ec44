import TensorNetworks

/// The bonds that are worth considering for a group of chains: those on the lower convex hull of error against stored
/// numbers, and single-bond steps from each of them toward the next.
///
/// The stored numbers of a chain are a sum over neighbouring bonds, the error a sum over bonds. So for every price of a
/// number the bonds of least `error + price · numbers` are found by dynamic programming along the chain (Viterbi), and the
/// price at which to look between two vertices of the hull is their slope. Single steps all the way from full bonds leave
/// the hull: what a step saves depends on the neighbouring bonds, which they lower without looking ahead.
struct ChainPath {
  private let group: SqueezeGroup
  private let gauge: Gauge
  private let minimumBond: Int
  /// `tails[bond][d]`: squared error of keeping d values.
  private let tails: [[Double]]
  /// For each bond the dimensions that the search looks at, rising.
  private let choices: [[Int]]

  /// Dimensions looked at for each bond, at most. With all of them the plans of a network were not measurably better.
  private static let choicesPerBond = 24
  /// Vertices are not looked for between two that are closer than this part of the dense matrix.
  private static let resolution = 1.0 / 40

  init(of group: SqueezeGroup, gauge: Gauge, minimumBond: Int) {
    self.group = group
    self.gauge = gauge
    self.minimumBond = minimumBond
    tails = group.energies.map { energies in
      var tails = Array(repeating: 0.0, count: energies.count + 1)
      for index in energies.indices.reversed() { tails[index] = tails[index + 1] + energies[index] }
      return tails
    }
    choices = group.shape.fullBonds.map { full in
      let least = min(max(1, minimumBond), full)
      let count = min(full - least + 1, Self.choicesPerBond)
      return (0..<count).map { count == 1 ? full : least + (full - least) * $0 / (count - 1) }
    }
  }

  private struct Vertex {
    let bonds: [Int]
    let parameters: Int
    let error: Double
  }

  private func vertex(_ bonds: [Int]) -> Vertex {
    Vertex(
      bonds: bonds, parameters: group.shape.storedCount(bonds: bonds, gauge: gauge),
      error: zip(tails, bonds).reduce(0) { $0 + $1.0[$1.1] })
  }

  /// Bonds of falling stored numbers.
  func bonds() -> [[Int]] {
    let vertices = hull()
    var result: [[Int]] = []
    for (index, vertex) in vertices.enumerated() {
      var state = SqueezeState(group, bonds: vertex.bonds, gauge: gauge)
      result.append(state.bonds)
      let end = index + 1 < vertices.count ? vertices[index + 1].parameters : 0
      while state.parameters > end,
        let step = state.cheapestStep(of: group, criterion: .errorPerParameter, minimumBond: minimumBond)
      {
        state.take(step)
        if state.parameters > end { result.append(state.bonds) }
      }
    }
    return result
  }

  /// From full bonds down to the least.
  private func hull() -> [Vertex] {
    let full = vertex(choices.map { $0[$0.count - 1] })
    let least = vertex(choices.map { $0[0] })
    guard least.parameters < full.parameters else { return [full] }
    let gap = Int(Self.resolution * Double(group.denseParameterCount))
    var found = [full]
    var open = [least]
    // `found` grows from the left; `open` has the vertices to the right, the next one last.
    while let right = open.last {
      let left = found[found.count - 1]
      if left.parameters - right.parameters > max(1, gap), right.error > left.error {
        let price = (right.error - left.error) / Double(left.parameters - right.parameters)
        let middle = vertex(cheapest(price: price))
        let line = left.error + price * Double(left.parameters - middle.parameters)
        if middle.parameters < left.parameters, middle.parameters > right.parameters,
          middle.error < line - 1e-9 * abs(line)
        {
          open.append(middle)
          continue
        }
      }
      found.append(right)
      open.removeLast()
    }
    return found
  }

  /// What a bond adds to the cost beside the products with its neighbours.
  private func ownCost(_ bond: Int, _ dimension: Int, price: Double) -> Double {
    let numbers =
      switch gauge {
      case .compact: -dimension * dimension
      case .canonical: 0
      case .spectral: bond == group.shape.centralBond ? dimension : 0
      }
    return tails[bond][dimension] + price * Double(numbers)
  }

  /// The bonds among the choices with the least `error + price · numbers`.
  /// - Complexity: the sum over sites of the products of both neighbours' choices.
  private func cheapest(price: Double) -> [Int] {
    let sites = group.shape.siteDimensions
    // Of each choice of the bond before: the least cost so far.
    var costs = [0.0]
    var before = [1]
    var origins: [[Int]] = []
    for (bond, dimensions) in choices.enumerated() {
      let site = sites[bond]
      var next = Array(repeating: Double.infinity, count: dimensions.count)
      var origin = Array(repeating: 0, count: dimensions.count)
      // Of the bond before, the choices that go with a dimension are a range, which moves up with it.
      var range = 0..<0
      for (place, dimension) in dimensions.enumerated() {
        let slope = price * Double(site * dimension)
        let known = range
        var (lower, upper) = (range.lowerBound, range.upperBound)
        while lower < before.count, dimension > before[lower] * site { lower += 1 }
        while upper < before.count, before[upper] <= site * dimension { upper += 1 }
        range = min(lower, upper)..<upper
        var (best, bestIndex) = (Double.infinity, 0)
        func search(_ part: Range<Int>) {
          for index in part {
            let cost = costs[index] + slope * Double(before[index])
            if cost < best { (best, bestIndex) = (cost, index) }
          }
        }
        // A larger dimension favours smaller bonds before it: those above the last best one stay worse than that.
        if place > 0, range.contains(origin[place - 1]), next[place - 1] < .infinity {
          search(range.lowerBound..<origin[place - 1] + 1)
          search(max(known.upperBound, range.lowerBound)..<upper)
        } else {
          search(range)
        }
        (next[place], origin[place]) = (best, bestIndex)
      }
      for (place, dimension) in dimensions.enumerated() { next[place] += ownCost(bond, dimension, price: price) }
      origins.append(origin)
      (costs, before) = (next, dimensions)
    }
    let last = sites[sites.count - 1]
    for (index, left) in before.enumerated() {
      costs[index] = left <= last ? costs[index] + price * Double(last * left) : .infinity
    }
    var place = costs.indices.min { costs[$0] < costs[$1] } ?? 0
    var bonds: [Int] = []
    for bond in choices.indices.reversed() {
      bonds.append(choices[bond][place])
      place = origins[bond][place]
    }
    return bonds.reversed()
  }
}
