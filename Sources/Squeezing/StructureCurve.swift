import TensorNetworks

/// Everything a group of matrices may become: parameters against error, for every structure it may have.
struct StructureCurve {
  /// One way to store each member of the group.
  struct Point: Equatable {
    /// Of one member.
    let parameters: Int
    /// Weighted, summed over the members.
    let squaredError: Double
    /// nil: dense.
    let form: Form?
  }

  struct Form: Equatable {
    let shape: MPOShape
    let bonds: [Int]
  }

  let members: [Int]
  /// Dense first, parameters falling; no point has both more parameters and more error than another.
  let points: [Point]
  /// Indices of the points on the lower convex hull, from dense down.
  let hull: [Int]

  /// - Parameters:
  ///   - weights: for each layer, what its squared error counts.
  init(
    members: [Int], of layers: [LayerProfile], structure: Structure, weights: [Double], minimumBond: Int
  ) {
    self.members = members
    let first = layers[members[0]]
    var candidates: [Point] = []
    let lowRank = Self.lowRankErrors(members, layers, weights)
    if structure != .mpo {
      let shape = MPOShape.lowRank(rows: first.rows, columns: first.columns)
      for rank in max(1, minimumBond)..<max(lowRank.count, minimumBond, 1) + 1 where rank < lowRank.count {
        let parameters = shape.parameterCount(bonds: [rank])
        if parameters >= first.denseParameterCount { break }
        candidates.append(
          Point(parameters: parameters, squaredError: lowRank[rank], form: Form(shape: shape, bonds: [rank])))
      }
    }
    // In a metric the factorisation is the optimum that is known, and better than what refined chains were measured to
    // reach; how far a chain gets would only show in refining it.
    let inMetric = members.contains { layers[$0].metricSingularValues != nil }
    if structure == .mpo || structure == .auto && !inMetric {
      candidates += Self.mpoPoints(
        members, layers, weights, lowRank: inMetric ? lowRank : nil, minimumBond: minimumBond)
    }
    candidates.sort { ($1.parameters, $0.squaredError) < ($0.parameters, $1.squaredError) }
    // From the smallest up, keep what is better than everything smaller.
    var kept: [Point] = []
    for point in candidates.reversed() where point.squaredError < kept.last?.squaredError ?? .infinity {
      if kept.last?.parameters == point.parameters { kept.removeLast() }
      kept.append(point)
    }
    points = [Point(parameters: first.denseParameterCount, squaredError: 0, form: nil)] + kept.reversed()
    hull = Self.lowerHull(of: points)
  }

  /// `errors[r]`: the squared error of rank r.
  private static func lowRankErrors(_ members: [Int], _ layers: [LayerProfile], _ weights: [Double]) -> [Double] {
    let count = layers[members[0]].singularValues.count
    var errors = Array(repeating: 0.0, count: count + 1)
    for member in members {
      let values = layers[member].metricSingularValues ?? layers[member].singularValues
      var tail = 0.0
      for rank in stride(from: count - 1, through: 0, by: -1) {
        tail += values[rank] * values[rank]
        errors[rank] += weights[member] * tail
      }
    }
    return errors
  }

  /// The group's own path of single-bond steps. Without a metric the errors are the spectra's bound. In a metric sites
  /// have no spectra: cores are refined in it afterwards, and the error of the factorisation with as many parameters,
  /// `lowRank`, stands for theirs, so that layers are compared by what the metric says of them.
  private static func mpoPoints(
    _ members: [Int], _ layers: [LayerProfile], _ weights: [Double], lowRank: [Double]?, minimumBond: Int
  ) -> [Point] {
    let group = SqueezeGroup(members: members, of: layers)
    let first = layers[members[0]]
    // Relative errors, made absolute with the members' common weight.
    let scale = members.reduce(0) { $0 + weights[$1] * layers[$1].norm * layers[$1].norm } / Double(members.count)
    var points: [Point] = []
    var state = SqueezeState(full: group)
    while let step = state.cheapestStep(of: group, criterion: .errorPerParameter, minimumBond: minimumBond) {
      state.take(step)
      guard state.parameters < first.denseParameterCount else { continue }
      var error = state.squaredError * scale
      if let lowRank {
        let rank = Double(state.parameters) / Double(first.rows + first.columns)
        let below = min(Int(rank), lowRank.count - 1)
        let above = min(below + 1, lowRank.count - 1)
        let fraction = rank - Double(below)
        error = (1 - fraction) * lowRank[below] + fraction * lowRank[above]
      }
      points.append(
        Point(parameters: state.parameters, squaredError: error, form: Form(shape: group.shape, bonds: state.bonds)))
    }
    return points
  }

  /// Andrew's monotone chain.
  private static func lowerHull(of points: [Point]) -> [Int] {
    var hull: [Int] = []
    func slope(_ a: Int, _ b: Int) -> Double {
      (points[b].squaredError - points[a].squaredError) / Double(points[a].parameters - points[b].parameters)
    }
    for index in points.indices {
      while hull.count >= 2, slope(hull[hull.count - 2], hull[hull.count - 1]) >= slope(hull[hull.count - 1], index) {
        hull.removeLast()
      }
      hull.append(index)
    }
    return hull
  }
}
