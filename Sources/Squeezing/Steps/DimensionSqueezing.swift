import HeapModule
import TensorNetworks

/// Dimension squeezing over a whole stacked network (arXiv 2106.02205, algorithm 2, with the error estimated from the
/// spectra alone): the cheapest step anywhere is taken, again and again.
///
/// A matrix counts what it is stored with in the gauge, but as dense while that is less. With the criterion error per
/// parameter every group starts dense, and its first step is the one from dense to the point of its own path where the
/// error per parameter saved is least; from there on each step lowers one bond by one. With the criterion error every
/// group starts from full bonds, as published. A group that starts as cores goes down from the bonds it has, and counts
/// what its cores take.
struct DimensionSqueezing {
  let groups: [SqueezeGroup]
  let criterion: SqueezeCriterion
  let gauge: Gauge
  /// The floor of each group's bonds.
  let minimumBonds: [Int]
  /// For each group, whether it started as cores, which nobody can make dense again.
  private let startedAsCores: [Bool]
  /// nil while the group is dense.
  private(set) var states: [SqueezeState?]
  /// Parameters of the matrices as they would be stored now.
  private(set) var parameters: Int
  private var heap = Heap<Candidate>()

  /// A step that may be taken; stale when its group has moved on since.
  private struct Candidate: Comparable {
    let cost: Double
    let group: Int
    let bond: Int
    let age: Int

    static func < (a: Candidate, b: Candidate) -> Bool {
      (a.cost, a.group, a.bond) < (b.cost, b.group, b.bond)
    }
  }
  private var ages: [Int]

  init(groups: [SqueezeGroup], criterion: SqueezeCriterion, gauge: Gauge, minimumBond: Int = 1) {
    self.init(
      groups: groups, criterion: criterion, gauge: gauge,
      minimumBonds: Array(repeating: minimumBond, count: groups.count),
      starts: Array(repeating: nil, count: groups.count))
  }

  /// - Parameters:
  ///   - minimumBonds: the floor of each group's bonds.
  ///   - starts: the bonds each group has as cores; nil for a group that is dense. Their errors count from there.
  init(groups: [SqueezeGroup], criterion: SqueezeCriterion, gauge: Gauge, minimumBonds: [Int], starts: [[Int]?]) {
    self.groups = groups
    self.criterion = criterion
    self.gauge = gauge
    self.minimumBonds = minimumBonds
    ages = Array(repeating: 0, count: groups.count)
    startedAsCores = starts.map { $0 != nil }
    states = zip(groups, starts).map { group, start in
      switch (start, criterion) {
      case (let bonds?, _): SqueezeState(group, bonds: bonds, gauge: gauge)
      case (nil, .errorPerParameter): nil
      case (nil, .error): SqueezeState(full: group, gauge: gauge)
      }
    }
    parameters = 0
    for index in groups.indices {
      parameters += storedParameters(of: index)
      pushCandidates(of: index)
    }
  }

  /// What the group's members take together, dense where the MPO is not smaller and dense is to be had.
  private func storedParameters(of index: Int) -> Int {
    let group = groups[index]
    if startedAsCores[index], let state = states[index] { return state.parameters * group.members.count }
    let one = states[index].map { min($0.parameters, group.denseParameterCount) } ?? group.denseParameterCount
    return one * group.members.count
  }

  /// Takes steps until the matrices have at most `budget` parameters.
  /// - Returns: whether the budget was reached; if not, every bond is as low as it goes.
  mutating func squeeze(to budget: Int) -> Bool {
    while parameters > budget {
      guard let candidate = nextCandidate() else { return false }
      let before = storedParameters(of: candidate.group)
      states[candidate.group] = state(after: candidate, excess: parameters - budget)
      ages[candidate.group] += 1
      parameters += storedParameters(of: candidate.group) - before
      pushCandidates(of: candidate.group)
    }
    return true
  }

  private mutating func nextCandidate() -> Candidate? {
    while let candidate = heap.popMin() {
      if candidate.age == ages[candidate.group] { return candidate }
    }
    return nil
  }

  private mutating func pushCandidates(of index: Int) {
    func push(_ cost: Double, bond: Int) {
      heap.insert(Candidate(cost: cost, group: index, bond: bond, age: ages[index]))
    }
    guard let state = states[index] else {
      if let entry = entry(of: index) { push(entry.cost, bond: 0) }
      return
    }
    for bond in state.bonds.indices {
      if let step = step(at: bond, of: index, from: state) {
        push(step.cost, bond: bond)
      }
    }
  }

  private func state(after candidate: Candidate, excess: Int) -> SqueezeState? {
    let group = groups[candidate.group]
    guard var state = states[candidate.group] else {
      guard let entry = entry(of: candidate.group) else { return nil }
      // The last step before the budget is met need not go further than that.
      let wanted = group.denseParameterCount - (excess + group.members.count - 1) / group.members.count
      return entry.state.parameters >= wanted
        ? entry.state
        : path(of: candidate.group) { $0.parameters <= wanted } ?? entry.state
    }
    if let step = step(at: candidate.bond, of: candidate.group, from: state) {
      state.take(step)
    }
    return state
  }

  /// The point of the group's own path with the least squared error per parameter saved against dense.
  private func entry(of index: Int) -> (state: SqueezeState, cost: Double)? {
    let group = groups[index]
    var best: (state: SqueezeState, cost: Double)?
    _ = path(of: index) { state in
      let saved = group.denseParameterCount - state.parameters
      if saved > 0 {
        let cost = group.errorPerParameter(state.squaredError, saved: saved)
        if cost <= best?.cost ?? .infinity { best = (state, cost) }
      }
      return false
    }
    return best
  }

  /// Walks the group down from full bonds by its own cheapest steps, to the first state that satisfies `isEnough`.
  private func path(of index: Int, until isEnough: (SqueezeState) -> Bool) -> SqueezeState? {
    var state = SqueezeState(full: groups[index], gauge: gauge)
    while !isEnough(state) {
      guard let step = cheapestStep(of: index, from: state) else { return nil }
      state.take(step)
    }
    return state
  }

  private func cheapestStep(of index: Int, from state: SqueezeState) -> SqueezeState.Step? {
    state.cheapestStep(of: groups[index], criterion: criterion, minimumBond: minimumBonds[index])
  }

  private func step(at bond: Int, of index: Int, from state: SqueezeState) -> SqueezeState.Step? {
    state.step(at: bond, of: groups[index], criterion: criterion, minimumBond: minimumBonds[index])
  }

  /// Lowers every group by itself as far as the relative error bound of each of its members stays within `error`.
  mutating func squeezeEach(toRelativeError error: Double, layers: [LayerProfile]) {
    for (index, group) in groups.enumerated() {
      var state = SqueezeState(full: group, gauge: gauge)
      while let step = cheapestStep(of: index, from: state) {
        var next = state
        next.take(step)
        if group.members.contains(where: { layers[$0].relativeErrorBound(bonds: next.bonds) ?? 0 > error }) { break }
        state = next
      }
      states[index] = state
    }
  }

  /// The bonds of the group's members, nil where they stay dense.
  func bonds(of index: Int) -> [Int]? {
    states[index].flatMap {
      startedAsCores[index] || $0.parameters < groups[index].denseParameterCount ? $0.bonds : nil
    }
  }
}
