/// How the rows and columns of a matrix are split over the sites of a matrix product operator.
///
/// Site k carries the index pair `(i_k, j_k)`; the padded matrix has `∏ i_k` rows and `∏ j_k` columns.
public struct MPOShape: Sendable, Hashable {
  /// `[i_1 … i_n]`, all positive.
  public let rowFactors: [Int]
  /// `[j_1 … j_n]`, all positive.
  public let columnFactors: [Int]

  /// - Throws: `MPOShapeError` for fewer than two sites, factors that are not positive, lists of different lengths, a
  ///   site that carries no index (factors 1 and 1) but for those of `factored`, or a product that overflows.
  public init(rowFactors: [Int], columnFactors: [Int]) throws {
    guard rowFactors.count == columnFactors.count, rowFactors.count >= 2 else {
      throw MPOShapeError.siteCount(rows: rowFactors.count, columns: columnFactors.count)
    }
    guard (rowFactors + columnFactors).allSatisfy({ $0 > 0 }),
      Self.product(rowFactors + columnFactors) != nil
    else { throw MPOShapeError.factorOutOfRange(rows: rowFactors, columns: columnFactors) }
    self.rowFactors = rowFactors
    self.columnFactors = columnFactors
    guard !isFactored else { return }
    for (site, (i, j)) in zip(rowFactors, columnFactors).enumerated() where i * j == 1 {
      throw MPOShapeError.emptySite(index: site)
    }
  }

  /// The two-site shape `(I, 1) × (1, J)`, whose MPO of bond d is a factorisation of rank d.
  /// - Precondition: `rows` and `columns` are at least 2.
  public static func lowRank(rows: Int, columns: Int) -> MPOShape {
    MPOShape(uncheckedRows: [rows, 1], columns: [1, columns])
  }

  /// `(I, 1) × (1, 1) × … × (1, J)`: a factorisation with square cores between its two frames; of two sites `lowRank`.
  /// - Precondition: `rows` and `columns` are at least 2, `sites` too.
  public static func factored(rows: Int, columns: Int, sites: Int) -> MPOShape {
    let ones = Array(repeating: 1, count: sites - 1)
    return MPOShape(uncheckedRows: [rows] + ones, columns: ones + [columns])
  }

  /// Whether the first site has all of the rows and the last all of the columns: an MPO of bonds r is a factorisation of
  /// rank r.
  public var isFactored: Bool {
    rowFactors[0] > 1 && columnFactors[siteCount - 1] > 1 && rowFactors.dropFirst().allSatisfy { $0 == 1 }
      && columnFactors.dropLast().allSatisfy { $0 == 1 }
  }

  /// Whether it is a factorisation with square cores between its frames.
  public var isDeep: Bool { isFactored && siteCount > 2 }

  init(uncheckedRows: [Int], columns: [Int]) {
    rowFactors = uncheckedRows
    columnFactors = columns
  }

  private static func product(_ factors: [Int]) -> Int? {
    var result = 1
    for factor in factors {
      let (product, overflow) = result.multipliedReportingOverflow(by: factor)
      if overflow { return nil }
      result = product
    }
    return result
  }

  /// n, the number of sites.
  public var siteCount: Int { rowFactors.count }
  /// Rows of the padded matrix, `∏ i_k`.
  public var rows: Int { rowFactors.reduce(1, *) }
  /// Columns of the padded matrix, `∏ j_k`.
  public var columns: Int { columnFactors.reduce(1, *) }
  /// `[i_k · j_k]`: the size of each site's index pair.
  public var siteDimensions: [Int] { zip(rowFactors, columnFactors).map { $0 * $1 } }

  /// `[d_1 … d_{n-1}]` at full rank: `min(∏_{m≤k} i_m j_m, ∏_{m>k} i_m j_m)`.
  public var fullBonds: [Int] { limitedBonds(Array(repeating: .max, count: siteCount - 1)) }

  /// The bonds, each lowered to at least 1 and at most what its neighbours allow: `d_k ≤ d_{k-1} i_k j_k` and
  /// `d_k ≤ i_{k+1} j_{k+1} d_{k+1}`. A tensor truncated to `bonds` has at most these ranks.
  public func limitedBonds(_ bonds: [Int]) -> [Int] {
    precondition(bonds.count == siteCount - 1)
    let dimensions = siteDimensions
    var result = bonds.map { max(1, $0) }
    var left = 1
    for bond in result.indices {
      let (limit, overflow) = left.multipliedReportingOverflow(by: dimensions[bond])
      result[bond] = overflow ? result[bond] : min(result[bond], limit)
      left = result[bond]
    }
    var right = 1
    for bond in result.indices.reversed() {
      let (limit, overflow) = right.multipliedReportingOverflow(by: dimensions[bond + 1])
      result[bond] = overflow ? result[bond] : min(result[bond], limit)
      right = result[bond]
    }
    return result
  }

  /// Bonds that are `rank` wherever the shape allows it.
  public func bonds(ofRank rank: Int) -> [Int] { limitedBonds(Array(repeating: rank, count: siteCount - 1)) }

  /// The index of the central tensor: the one with `I · J` elements at full rank, where the bonds stop rising and begin
  /// to fall. For balanced factors of odd n it is the middle one.
  public var centralIndex: Int {
    let dimensions = siteDimensions
    var left = 1
    var right = dimensions.reduce(1, *)
    for site in dimensions.indices {
      left *= dimensions[site]
      right /= dimensions[site]
      if left >= right { return site }
    }
    return dimensions.count - 1
  }

  /// `[d_{k-1}, i_k, j_k, d_k]` of every core.
  public func coreShapes(bonds: [Int]) -> [[Int]] {
    let ends = [1] + bonds + [1]
    return (0..<siteCount).map { [ends[$0], rowFactors[$0], columnFactors[$0], ends[$0 + 1]] }
  }

  /// `Σ_k d_{k-1} i_k j_k d_k`.
  public func parameterCount(bonds: [Int]) -> Int {
    var count = 0
    var left = 1
    for site in rowFactors.indices {
      let right = site < bonds.count ? bonds[site] : 1
      count += left * rowFactors[site] * columnFactors[site] * right
      left = right
    }
    return count
  }
}

extension MPOShape: CustomStringConvertible {
  /// As `--shape` takes it: `3,4,4,4,4x4,4,8,6,4`.
  public var description: String {
    rowFactors.map(String.init).joined(separator: ",") + "x" + columnFactors.map(String.init).joined(separator: ",")
  }
}

/// Why a list of factors is not the shape of a matrix product operator.
public enum MPOShapeError: Error, Sendable, Equatable, CustomStringConvertible {
  /// There are fewer than two factors, or not as many of rows as of columns.
  case siteCount(rows: Int, columns: Int)
  /// A factor is not positive, or the product of all overflows.
  case factorOutOfRange(rows: [Int], columns: [Int])
  /// A site, counted from 0, has the factors 1 and 1.
  case emptySite(index: Int)

  public var description: String {
    switch self {
    case .siteCount(let rows, let columns):
      "\(rows) row factors and \(columns) column factors; give the same number of each, at least two"
    case .factorOutOfRange(let rows, let columns):
      "factors \(rows) x \(columns) must be positive and their product must fit 63 bits"
    case .emptySite(let index):
      "site \(index + 1) has the factors 1 and 1; leave it out"
    }
  }
}

extension MPOShape: Codable {
  enum CodingKeys: String, CodingKey {
    case rowFactors = "row_factors"
    case columnFactors = "column_factors"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    try self.init(
      rowFactors: container.decode([Int].self, forKey: .rowFactors),
      columnFactors: container.decode([Int].self, forKey: .columnFactors))
  }
}
