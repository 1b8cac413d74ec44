import Glibc

extension MPOShape {
  /// The shape to use for a matrix of `rows × columns` when the user names none: the published one where the sides
  /// match (method section of arXiv 2106.02205), else the most balanced that a search finds, largest at the centre.
  /// The padded sides may be a little larger than the given ones.
  ///
  /// - Precondition: both sides are at least 2, `sites` at least 2.
  public static func automatic(rows: Int, columns: Int, sites: Int) -> MPOShape {
    if sites == 5, let published = published(rows: rows, columns: columns) { return published }
    return balanced(rows: rows, columns: columns, sites: sites)
  }

  /// The shapes of arXiv 2106.02205 and the code published with it, either way round.
  static func published(rows: Int, columns: Int) -> MPOShape? {
    let table: [(rows: [Int], columns: [Int])] = [
      ([3, 4, 4, 4, 4], [4, 4, 8, 6, 4]),
      ([3, 4, 4, 4, 4], [4, 4, 4, 4, 3]),
      ([5, 10, 10, 10, 6], [2, 2, 4, 4, 2]),
    ]
    for entry in table {
      let sides = (entry.rows.reduce(1, *), entry.columns.reduce(1, *))
      if sides == (rows, columns) { return MPOShape(uncheckedRows: entry.rows, columns: entry.columns) }
      if sides == (columns, rows) { return MPOShape(uncheckedRows: entry.columns, columns: entry.rows) }
    }
    return nil
  }

  static func balanced(rows: Int, columns: Int, sites: Int) -> MPOShape {
    let rowFactors = SideFactors.best(side: rows, count: sites).factors
    let columnFactors = SideFactors.best(side: columns, count: sites).factors
    return arranged(rowFactors, columnFactors)
  }

  /// Deals two ascending factor lists out to the sites: the largest products at the centre, and around it products as
  /// even as they can be, a large row factor meeting a small column factor.
  private static func arranged(_ rowFactors: [Int], _ columnFactors: [Int]) -> MPOShape {
    let count = rowFactors.count
    // Pair the largest of both for the centre; pair the rest against each other.
    let centre = (rowFactors[count - 1], columnFactors[count - 1])
    var pairs = Array(zip(rowFactors.dropLast(), columnFactors.dropLast().reversed()))
    pairs.sort { ($0.0 * $0.1, $0.0) > ($1.0 * $1.1, $1.0) }
    // From the centre outwards, left and right in turn, products falling.
    var sites = [centre]
    for (index, pair) in pairs.enumerated() {
      if index % 2 == 0 { sites.insert(pair, at: 0) } else { sites.append(pair) }
    }
    // A site that carries no index at all is of no use; its neighbour towards the centre stands for both.
    sites.removeAll { $0.0 * $0.1 == 1 }
    if sites.count < 2 { return lowRank(rows: centre.0, columns: centre.1) }
    return MPOShape(uncheckedRows: sites.map(\.0), columns: sites.map(\.1))
  }
}

/// A side of a matrix, padded where that makes it split well, as a product of factors.
struct SideFactors: Equatable {
  /// Ascending.
  let factors: [Int]
  var padded: Int { factors.reduce(1, *) }

  /// What one per cent of padding must gain: the natural logarithm of the ratio of the largest factor to the ideal one.
  private static let paddingWeight = 30.0
  private static let largestPadding = 1.0 / 16
  /// The vocabulary of BERT is padded as in the published code.
  private static let publishedPadding = [30522: 30720]

  /// The factors of `side`, or of a number slightly above it whose prime factors are all at most 7.
  static func best(side: Int, count: Int) -> SideFactors {
    let ideal = pow(Double(side), 1 / Double(count))
    func cost(_ candidate: SideFactors) -> Double {
      let imbalance = log(Double(candidate.factors[count - 1]) / ideal)
      return imbalance + paddingWeight * (Double(candidate.padded) / Double(side) - 1)
    }
    if let padded = publishedPadding[side] { return balanced(padded, count: count) }
    var best = balanced(side, count: count)
    var bestCost = cost(best)
    let limit = side + Int(Double(side) * largestPadding)
    var number = side + 1
    while number <= limit, paddingWeight * (Double(number) / Double(side) - 1) < bestCost {
      if isSmooth(number) {
        let candidate = balanced(number, count: count)
        let candidateCost = cost(candidate)
        if candidateCost < bestCost { (best, bestCost) = (candidate, candidateCost) }
      }
      number += 1
    }
    return best
  }

  private static func isSmooth(_ number: Int) -> Bool {
    var rest = number
    for prime in [2, 3, 5, 7] { while rest.isMultiple(of: prime) { rest /= prime } }
    return rest == 1
  }

  /// `number` as a product of `count` factors, the largest as small as can be, then the smallest as large as can be.
  static func balanced(_ number: Int, count: Int) -> SideFactors {
    let divisors = Self.divisors(of: number)
    var best: [Int]?
    var chosen: [Int] = []
    // Factors are chosen in ascending order, so `rest` must stay at least `factor^remaining`.
    func search(rest: Int, remaining: Int, from start: Int) {
      if remaining == 1 {
        guard rest >= (chosen.last ?? 1) else { return }
        let candidate = chosen + [rest]
        if best.map({ isMoreBalanced(candidate, than: $0) }) ?? true { best = candidate }
        return
      }
      for index in start..<divisors.count {
        let factor = divisors[index]
        var power = 1
        var fits = true
        for _ in 0..<remaining {
          power *= factor
          if power > rest {
            fits = false
            break
          }
        }
        if !fits { break }
        guard rest.isMultiple(of: factor) else { continue }
        chosen.append(factor)
        search(rest: rest / factor, remaining: remaining - 1, from: index)
        chosen.removeLast()
      }
    }
    search(rest: number, remaining: count, from: 0)
    return SideFactors(factors: best ?? Array(repeating: 1, count: count - 1) + [number])
  }

  private static func isMoreBalanced(_ a: [Int], than b: [Int]) -> Bool {
    for (x, y) in zip(a.reversed(), b.reversed()) where x != y { return x < y }
    return false
  }

  private static func divisors(of number: Int) -> [Int] {
    var small: [Int] = []
    var large: [Int] = []
    var candidate = 1
    while candidate * candidate <= number {
      if number.isMultiple(of: candidate) {
        small.append(candidate)
        if candidate * candidate != number { large.append(number / candidate) }
      }
      candidate += 1
    }
    return small + large.reversed()
  }
}
