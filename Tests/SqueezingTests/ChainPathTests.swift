import TensorNetworks
import TestSupport
import Testing

@testable import Squeezing

@Suite struct ChainPathTests {
  private static let shapes = [
    try! MPOShape(rowFactors: [2, 3, 2], columnFactors: [3, 2, 2]),
    try! MPOShape(rowFactors: [2, 2, 2, 2], columnFactors: [2, 2, 2, 2]),
    try! MPOShape(rowFactors: [3, 2, 4], columnFactors: [2, 4, 3]),
    MPOShape.lowRank(rows: 9, columns: 7),
  ]

  /// All bonds that are chains, with none below `minimumBond`.
  private func allBonds(_ shape: MPOShape, minimumBond: Int) -> [[Int]] {
    shape.fullBonds.reduce([[]]) { lists, full in
      lists.flatMap { list in (min(full, minimumBond)...full).map { list + [$0] } }
    }.filter { shape.limitedBonds($0) == $0 }
  }

  @Test(arguments: 0..<4, Gauge.allCases)
  func `no bonds at all are below the hull of the path`(index: Int, gauge: Gauge) throws {
    let shape = Self.shapes[index]
    for (decay, minimumBond) in [(0.7, 1), (0.95, 1), (1, 1), (0.9, 3)] {
      let layer = try LayerProfile.random("w", shape, decay: decay, seed: UInt64(index))
      let group = try SqueezeGroup(members: [0], of: [layer])
      func cost(_ bonds: [Int], _ price: Double) throws -> Double {
        let error = try #require(layer.relativeErrorBound(bonds: bonds))
        return error * error + price * Double(shape.storedCount(bonds: bonds, gauge: gauge))
      }
      let path = ChainPath(of: group, gauge: gauge, minimumBond: minimumBond).bonds()
      let all = allBonds(shape, minimumBond: minimumBond)
      #expect(path.allSatisfy(all.contains))
      for exponent in -24...2 {
        let price = 2.pow(exponent)
        let found = try path.map { try cost($0, price) }.min()
        let best = try all.map { try cost($0, price) }.min()
        #expect(try #require(found) <= #require(best) * (1 + 1e-9) + 1e-14)
      }
    }
  }

  @Test func `the path has no gaps: from every bonds but the last some step leads on`() throws {
    let layer = try LayerProfile.random("w", Self.shapes[1], decay: 0.9, seed: 5)
    let path = ChainPath(of: try SqueezeGroup(members: [0], of: [layer]), gauge: .compact, minimumBond: 1).bonds()
    #expect(path.first == layer.shape.fullBonds && path.last == [1, 1, 1])
    let counts = path.map { layer.shape.storedCount(bonds: $0, gauge: .compact) }
    for (a, b) in zip(counts, counts.dropFirst()) { #expect(a > b && a - b <= 2 * 4 * 16) }
  }
}

extension Int {
  /// `self` to an integer power.
  fileprivate func pow(_ exponent: Int) -> Double {
    exponent < 0 ? 1 / pow(-exponent) : (0..<exponent).reduce(1.0) { product, _ in product * Double(self) }
  }
}
