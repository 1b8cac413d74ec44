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
    let form: OperatorForm?
  }

  let members: [Int]
  /// Dense first, parameters falling; no point has both more parameters and more error than another.
  let points: [Point]
  /// Indices of the points on the lower convex hull, from dense down.
  let hull: [Int]

  /// - Parameters:
  ///   - weights: for each layer, what its squared error counts.
  ///   - gauges: what operators may be stored as.
  /// - Throws: `SqueezeError.profileLacks`.
  init(
    members: [Int], of layers: [LayerProfile], structure: Structure, weights: [Double], minimumBond: Int,
    gauges: [Gauge], rounding: RoundingError = .negligible
  ) throws {
    self.members = members
    let first = layers[members[0]]
    for member in members {
      let hasMetric = layers[member].metricSingularValues != nil
      try layers[member].require(
        LayerProfile.parts(
          for: structure, .ratio(1), hasMetric: hasMetric, hasBases: layers[member].basisSpectra != nil))
    }
    var forms: [OperatorForm] = []
    if structure != .chain {
      let shape = MPOShape.lowRank(rows: first.rows, columns: first.columns)
      for gauge in gauges {
        forms += (min(max(1, minimumBond), shape.fullBonds[0])...shape.fullBonds[0]).map {
          OperatorForm(shape: shape, bonds: [$0], gauge: gauge)
        }
      }
    }
    // In a metric the factorisation is the optimum that is known, and better than what refined chains were measured to
    // reach; how far a chain gets would only show in refining it.
    if structure == .chain || structure == .auto && members.allSatisfy({ layers[$0].metricSingularValues == nil }) {
      let group = try SqueezeGroup(members: members, of: layers)
      for gauge in gauges {
        forms += ChainPath(of: group, gauge: gauge, minimumBond: minimumBond).bonds().map {
          OperatorForm(shape: group.shape, bonds: $0, gauge: gauge)
        }
      }
    }
    let errors = members.map { (weight: weights[$0], of: FormErrors(of: layers[$0], rounding: rounding)) }
    var candidates: [Point] = []
    for form in forms where form.storedCount < first.denseParameterCount {
      let error = errors.reduce(0) { $0 + $1.weight * $1.of.squaredError(of: form) }
      candidates.append(Point(parameters: form.storedCount, squaredError: error, form: form))
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
