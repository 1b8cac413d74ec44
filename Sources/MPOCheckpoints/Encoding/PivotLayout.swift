/// Where the values of a pivoted core go: which rows of `[d·i·j, d']` (or columns of `[d, i·j·d']`) are the identity, and
/// the order of the others.
struct PivotLayout {
  private let side: ArrayEncoding.Pivots
  /// Rows (left) or columns (right) of the core as a matrix.
  private let all: Int
  private let pivots: [Int]
  /// The others, ascending.
  private let others: [Int]

  /// - Precondition: the pivots are ascending and inside of the core.
  init(shape: [Int], side: ArrayEncoding.Pivots, pivots: [Int]) {
    let site = shape[1] * shape[2]
    self.side = side
    all = side == .left ? shape[0] * site : site * shape[3]
    self.pivots = pivots
    var isPivot = [Bool](repeating: false, count: all)
    for pivot in pivots { isPivot[pivot] = true }
    others = (0..<all).filter { !isPivot[$0] }
  }

  /// `[count, count]`, row-major.
  static func identity<Element: BinaryFloatingPoint>(_ count: Int) -> [Element] {
    var elements = [Element](repeating: 0, count: count * count)
    for index in 0..<count { elements[index * count + index] = 1 }
    return elements
  }

  /// The values of a whole core that are stored: `[all − count, count]` on the left, `[count, all − count]` on the right.
  func rest<Element>(of whole: [Element]) -> [Element] {
    let count = pivots.count
    switch side {
    case .left: return others.flatMap { whole[$0 * count..<($0 + 1) * count] }
    case .right:
      var rest: [Element] = []
      rest.reserveCapacity(count * others.count)
      for row in 0..<count { for column in others { rest.append(whole[row * all + column]) } }
      return rest
    }
  }

  /// The whole core of stored values.
  func whole<Element: BinaryFloatingPoint>(_ rest: [Element]) -> [Element] {
    let count = pivots.count
    var whole = [Element](repeating: 0, count: all * count)
    switch side {
    case .left:
      for (index, pivot) in pivots.enumerated() { whole[pivot * count + index] = 1 }
      for (place, row) in others.enumerated() {
        for column in 0..<count { whole[row * count + column] = rest[place * count + column] }
      }
    case .right:
      for (index, pivot) in pivots.enumerated() { whole[index * all + pivot] = 1 }
      for row in 0..<count {
        for (place, column) in others.enumerated() { whole[row * all + column] = rest[row * others.count + place] }
      }
    }
    return whole
  }
}
