/// Work that is divided among parts by what it costs: the largest first, each to the part that has the least so far.
///
/// No part gets more than 4/3 of what the largest part of the best division has (R. L. Graham, SIAM J. Appl. Math. 17, 1969).
struct BalancedParts {
  /// For each item its part, from 0.
  let parts: [Int]
  /// What each part costs.
  let loads: [Double]

  /// - Complexity: O(n log n + n·parts).
  init(of costs: [Double], count: Int) {
    var parts = Array(repeating: 0, count: costs.count)
    var loads = Array(repeating: 0.0, count: max(1, count))
    let largestFirst = costs.indices.sorted { (costs[$1], $0) < (costs[$0], $1) }
    for item in largestFirst {
      let lightest = loads.indices.min { (loads[$0], $0) < (loads[$1], $1) } ?? 0
      loads[lightest] += costs[item]
      parts[item] = lightest
    }
    (self.parts, self.loads) = (parts, loads)
  }
}
