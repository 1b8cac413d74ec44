import HeapModule

/// The choice of structure and size for every group of a network at once: one heap over the steps along the convex hulls
/// of their curves, the least error per parameter saved first.
struct StructureSelection {
  private let curves: [StructureCurve]
  /// For each curve, the place in its hull.
  private var places: [Int]
  /// For each curve, the index of the chosen point.
  private(set) var chosen: [Int]
  private(set) var parameters: Int
  private var heap = Heap<Candidate>()

  private struct Candidate: Comparable {
    let cost: Double
    let curve: Int

    static func < (a: Candidate, b: Candidate) -> Bool { (a.cost, a.curve) < (b.cost, b.curve) }
  }

  init(_ curves: [StructureCurve]) {
    self.curves = curves
    places = Array(repeating: 0, count: curves.count)
    chosen = Array(repeating: 0, count: curves.count)
    parameters = curves.reduce(0) { $0 + $1.points[0].parameters * $1.members.count }
    for curve in curves.indices { push(curve) }
  }

  private mutating func push(_ index: Int) {
    let curve = curves[index]
    guard places[index] + 1 < curve.hull.count else { return }
    let (from, to) = (curve.points[curve.hull[places[index]]], curve.points[curve.hull[places[index] + 1]])
    let saved = (from.parameters - to.parameters) * curve.members.count
    heap.insert(Candidate(cost: (to.squaredError - from.squaredError) / Double(saved), curve: index))
  }

  /// Goes down until the matrices have at most `budget` parameters.
  /// - Returns: whether the budget was reached; if not, everything is as small as it gets.
  mutating func select(to budget: Int) -> Bool {
    while parameters > budget {
      guard let candidate = heap.popMin() else { return false }
      let curve = curves[candidate.curve]
      places[candidate.curve] += 1
      let before = curve.points[chosen[candidate.curve]].parameters
      let target = curve.hull[places[candidate.curve]]
      // The last step goes no further than it must: the points between are not on the hull, but closer.
      let excess = (parameters - budget + curve.members.count - 1) / curve.members.count
      let point = (chosen[candidate.curve]...target).first { curve.points[$0].parameters <= before - excess } ?? target
      parameters -= (before - curve.points[point].parameters) * curve.members.count
      chosen[candidate.curve] = point
      push(candidate.curve)
    }
    return true
  }

  /// Takes of each curve the smallest point whose squared error is at most that curve's limit.
  mutating func select(withinErrors limits: [Double]) {
    for (index, curve) in curves.enumerated() {
      chosen[index] = curve.points.lastIndex { $0.squaredError <= limits[index] } ?? 0
    }
  }

  /// What the members of a curve become; nil: dense.
  func form(of curve: Int) -> StructureCurve.Form? { curves[curve].points[chosen[curve]].form }
}
