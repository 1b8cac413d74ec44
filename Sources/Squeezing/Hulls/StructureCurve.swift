import TensorNetworks

/// Everything a group of matrices may become: size against error, for every structure it may have.
struct StructureCurve {
  /// One way to store each member of the group, or all linked matrices.
  struct Point: Equatable {
    /// Of one copy, in numbers or in bytes.
    let size: Int
    /// Weighted, summed over the members.
    let squaredError: Double
    /// nil: dense, or of linked matrices, each for itself.
    let form: OperatorForm?
    /// Of linked matrices that are stored each for itself: the point on the curve of each.
    var places: [Int] = []
  }

  /// How often a point's size count: once for each member that is stored by itself.
  let copies: Int
  /// Of linked matrices: the curves of what each becomes alone.
  let parts: [StructureCurve]
  /// Dense first, size falling; no point has both more size and more error than another.
  let points: [Point]
  /// Indices of the points on the lower convex hull, from dense down.
  let hull: [Int]

  /// - Parameters:
  ///   - weights: for each layer, what its squared error counts.
  ///   - alignment: which bonds are chosen from.
  ///   - gauges: what operators may be stored as.
  ///   - factorSites: of factorisations of low rank.
  ///   - unit: what a size is.
  /// - Throws: `SqueezeError.profileLacks`.
  init(
    members: [Int], of layers: [LayerProfile], structure: MatrixStructure, weights: [Double], minimumBond: Int,
    alignment: BondAlignment = .auto, gauges: [Gauge], rounding: RoundingError = .negligible, factorSites: Int = 2,
    unit: StoredUnit = .numbers
  ) throws {
    copies = members.count
    parts = []
    let first = layers[members[0]]
    for member in members {
      let hasMetric = layers[member].metricSingularValues != nil
      try layers[member].require(
        LayerProfile.measurements(
          for: structure, .ratio(1), hasMetric: hasMetric, hasBases: layers[member].basisSpectra != nil))
    }
    var forms: [OperatorForm] = []
    if structure != .chain {
      let shape = MPOShape.factored(rows: first.rows, columns: first.columns, sites: factorSites)
      let ranks = Self.ranks(from: minimumBond, to: shape.fullBonds[0], alignment: alignment)
      for gauge in gauges {
        forms += ranks.map {
          OperatorForm(shape: shape, bonds: shape.bonds(ofRank: $0), gauge: gauge)
        }
      }
      if unit.hasIntegers, factorSites == 2 {
        let gauges: [Gauge] = gauges.contains(.compact) ? [.compact, .canonical] : [.canonical]
        forms += forms.filter { gauges.contains($0.gauge) }.flatMap { form in
          IntegerGroups.planned.map {
            OperatorForm(shape: form.shape, bonds: form.bonds, gauge: form.gauge, integers: $0)
          }
        }
      }
    }
    // In a metric the factorisation is the optimum that is known, and better than what refined chains were measured to
    // reach; how far a chain gets would only show in refining it.
    if structure == .chain || structure == .auto && members.allSatisfy({ layers[$0].metricSingularValues == nil }) {
      let group = try SqueezeGroup(members: members, of: layers)
      for gauge in gauges {
        forms += ChainPath(of: group, gauge: gauge, minimumBond: minimumBond).bonds().map { bonds in
          OperatorForm(
            shape: group.shape, bonds: group.shape.aligned(bonds, to: alignment.multipleOfChains, from: minimumBond),
            gauge: gauge)
        }
      }
    }
    let errors = members.map { (weight: weights[$0], of: FormErrors(of: layers[$0], rounding: rounding)) }
    var candidates: [Point] = []
    let dense = unit.size(of: first)
    for form in forms {
      let size = unit.size(of: form, of: first)
      guard size < dense else { continue }
      let error = errors.reduce(0) { $0 + $1.weight * $1.of.squaredError(of: form) }
      candidates.append(Point(size: size, squaredError: error, form: form))
    }
    points = Self.worthwhile(candidates, below: Point(size: dense, squaredError: 0, form: nil))
    hull = Self.lowerHull(of: points)
  }

  /// The ranks of a factorisation to choose from: the least, those that `alignment` asks for, and `full`.
  static func ranks(from minimum: Int, to full: Int, alignment: BondAlignment) -> [Int] {
    let least = min(max(1, minimum), full)
    let multiple = alignment.multiple(forFullBond: full)
    return (least...full).filter { $0 == least || $0 < multiple || $0.isMultiple(of: multiple) || $0 == full }
  }

  /// Of linked matrices: everything they may become, each alone or all together.
  /// - Parameters:
  ///   - parts: the curves of what each becomes alone.
  ///   - linked: what they may become together.
  init(linking parts: [StructureCurve], _ linked: [Point]) {
    copies = 1
    self.parts = parts
    let apart = Self.sum(of: parts)
    points = Self.worthwhile(apart.dropFirst() + linked.filter { $0.size < apart[0].size }, below: apart[0])
    hull = Self.lowerHull(of: points)
  }

  /// The hull of what several curves may become at the same time: the steps along their hulls, the least error per
  /// parameter first.
  private static func sum(of parts: [StructureCurve]) -> [Point] {
    struct Step {
      let part: Int
      let place: Int
      let saved: Int
      let error: Double
    }
    let steps = parts.enumerated().flatMap { index, part in
      zip(part.hull, part.hull.dropFirst()).map { from, to in
        Step(
          part: index, place: to, saved: (part.points[from].size - part.points[to].size) * part.copies,
          error: part.points[to].squaredError - part.points[from].squaredError)
      }
    }
    var points = [
      Point(
        size: parts.reduce(0) { $0 + $1.points[0].size * $1.copies }, squaredError: 0, form: nil,
        places: parts.map { _ in 0 })
    ]
    // Along a hull the error per parameter rises, so each curve's steps stay in their order.
    let ordered = steps.enumerated().sorted {
      ($0.element.error / Double($0.element.saved), $0.offset) < (
        $1.element.error / Double($1.element.saved), $1.offset
      )
    }
    for (_, step) in ordered {
      let last = points[points.count - 1]
      var places = last.places
      places[step.part] = step.place
      points.append(
        Point(
          size: last.size - step.saved, squaredError: last.squaredError + step.error, form: nil,
          places: places))
    }
    return points
  }

  /// `dense` and the candidates that are better than everything smaller, size falling.
  private static func worthwhile(_ candidates: some Sequence<Point>, below dense: Point) -> [Point] {
    let candidates = candidates.sorted { ($1.size, $0.squaredError) < ($0.size, $1.squaredError) }
    // From the smallest up, keep what is better than everything smaller.
    var kept: [Point] = []
    for point in candidates.reversed() where point.squaredError < kept.last?.squaredError ?? .infinity {
      if kept.last?.size == point.size { kept.removeLast() }
      kept.append(point)
    }
    return [dense] + kept.reversed()
  }

  /// Andrew's monotone chain.
  private static func lowerHull(of points: [Point]) -> [Int] {
    var hull: [Int] = []
    func slope(_ a: Int, _ b: Int) -> Double {
      (points[b].squaredError - points[a].squaredError) / Double(points[a].size - points[b].size)
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

extension MPOShape {
  /// Bonds lowered to multiples of `alignment`, but no further than to `minimum`; full ones stay.
  fileprivate func aligned(_ bonds: [Int], to alignment: Int, from minimum: Int) -> [Int] {
    guard alignment > 1 else { return bonds }
    return limitedBonds(
      zip(bonds, fullBonds).map { bond, full in
        let lowered = bond / alignment * alignment
        return bond == full || lowered < max(1, minimum) ? bond : lowered
      })
  }
}
