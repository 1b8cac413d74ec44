import HeapModule

/// The choice of structure and size for every group of a network at once: one heap over the steps along the convex hulls
/// of their curves, the least error per parameter saved first.
struct StructureSelection {
  private let curves: [StructureCurve]
  /// For each curve, the place in its hull.
  private var places: [Int]
  /// For each curve, the index of the chosen point.
  private(set) var chosen: [Int]
  private(set) var size: Int
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
    size = curves.reduce(0) { $0 + $1.points[0].size * $1.copies }
    for curve in curves.indices { push(curve) }
  }

  private mutating func push(_ index: Int) {
    let curve = curves[index]
    guard places[index] + 1 < curve.hull.count else { return }
    let (from, to) = (curve.points[curve.hull[places[index]]], curve.points[curve.hull[places[index] + 1]])
    let saved = (from.size - to.size) * curve.copies
    heap.insert(Candidate(cost: (to.squaredError - from.squaredError) / Double(saved), curve: index))
  }

  /// Goes down until the matrices have at most `budget` size.
  /// - Returns: whether the budget was reached; if not, everything is as small as it gets.
  mutating func select(to budget: Int) -> Bool {
    while size > budget {
      guard let candidate = heap.popMin() else { return false }
      let target = curves[candidate.curve].hull[places[candidate.curve] + 1]
      if size - saved(candidate.curve, at: target) <= budget {
        // The last step goes no further than it must, wherever that costs least: to points between those of the hull.
        let last = curves.indices.compactMap { closing($0, excess: size - budget) }.min { $0.cost < $1.cost }
        if let last { take(last.curve, to: last.point) }
        useUp(budget)
        return true
      }
      take(candidate.curve, to: target)
      places[candidate.curve] += 1
      push(candidate.curve)
    }
    return true
  }

  /// Parameters that all members of a curve save together by going to a point.
  private func saved(_ index: Int, at point: Int) -> Int {
    let curve = curves[index]
    return (curve.points[chosen[index]].size - curve.points[point].size) * curve.copies
  }

  /// The nearest point of a curve that saves at least `excess`, and the error it costs.
  private func closing(_ index: Int, excess: Int) -> (curve: Int, point: Int, cost: Double)? {
    let points = curves[index].points
    guard let point = (chosen[index]..<points.count).first(where: { saved(index, at: $0) >= excess }) else {
      return nil
    }
    return (index, point, points[point].squaredError - points[chosen[index]].squaredError)
  }

  /// Goes back up wherever what is left of the budget allows it, each time where that lowers the error most.
  private mutating func useUp(_ budget: Int) {
    while let best = curves.indices.compactMap({ rise($0, by: budget - size) }).min(by: { $0.cost < $1.cost }) {
      take(best.curve, to: best.point)
    }
  }

  /// The highest point of a curve that takes at most `left` more, and the (negative) error it costs.
  private func rise(_ index: Int, by left: Int) -> (curve: Int, point: Int, cost: Double)? {
    let points = curves[index].points
    var point = chosen[index]
    while point > 0, saved(index, at: point - 1) >= -left { point -= 1 }
    guard point < chosen[index] else { return nil }
    return (index, point, points[point].squaredError - points[chosen[index]].squaredError)
  }

  private mutating func take(_ index: Int, to point: Int) {
    size -= saved(index, at: point)
    chosen[index] = point
  }

  /// Takes of each curve the smallest point that `isAllowed`; dense where there is none.
  mutating func select(where isAllowed: (_ curve: Int, StructureCurve.Point) -> Bool) {
    for index in curves.indices { take(index, to: curves[index].smallest { isAllowed(index, $0) }) }
  }

  /// What is chosen of a curve.
  func point(of curve: Int) -> StructureCurve.Point { curves[curve].points[chosen[curve]] }
}

extension StructureCurve {
  /// The index of the smallest point that `isAllowed`; 0, dense, where there is none.
  func smallest(where isAllowed: (Point) -> Bool) -> Int { points.lastIndex(where: isAllowed) ?? 0 }
}
