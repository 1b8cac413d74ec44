import Testing

@testable import TensorNetworks

@Suite struct MPOShapeTests {
  /// The published shapes: arXiv 2106.02205 and its code.
  @Test(
    arguments: [
      (768, 3072, [3, 4, 4, 4, 4], [4, 4, 8, 6, 4], [12, 192, 384, 16]),
      (3072, 768, [4, 4, 8, 6, 4], [3, 4, 4, 4, 4], [12, 192, 384, 16]),
      (768, 768, [3, 4, 4, 4, 4], [4, 4, 4, 4, 3], [12, 192, 192, 12]),
      (30000, 128, [5, 10, 10, 10, 6], [2, 2, 4, 4, 2], [10, 200, 480, 12]),
    ])
  func `published matrices get the published factors and full-rank bonds`(
    rows: Int, columns: Int, rowFactors: [Int], columnFactors: [Int], bonds: [Int]
  ) {
    let shape = MPOShape.automatic(rows: rows, columns: columns, sites: 5)
    #expect(shape.rowFactors == rowFactors)
    #expect(shape.columnFactors == columnFactors)
    #expect(shape.fullBonds == bonds)
    #expect(shape.centralIndex == 2)
    #expect(shape.coreShapes(bonds: bonds)[2].reduce(1, *) == rows * columns)
  }

  @Test func `ALBERT-base counts 12.695 million parameters in full-rank MPO form and 1.188 million trainable`() {
    // Sizes of albert-base-v1's tensors: five 768 × 768, the two of the feed-forward layer, the word embedding.
    let matrices = Array(repeating: (768, 768), count: 5) + [(768, 3072), (3072, 768), (30000, 128)]
    let rest =
      512 * 128 + 2 * 128 + 2 * 128  // positions, token types, norm
      + 128 * 768 + 768  // embedding projection
      + 5 * 768 + 3072 + 768 + 4 * 768  // biases and the layer's norms
      + 2 * 768 + 2  // a two-class head
    let dense = matrices.reduce(rest) { $0 + $1.0 * $1.1 }
    var total = rest
    var trainable = rest
    for (rows, columns) in matrices {
      let shape = MPOShape.automatic(rows: rows, columns: columns, sites: 5)
      let count = shape.parameterCount(bonds: shape.fullBonds)
      total += count
      trainable += count - shape.coreShapes(bonds: shape.fullBonds)[shape.centralIndex].reduce(1, *)
    }
    func millions(_ count: Int) -> Double { (Double(count) / 1e3).rounded() / 1e3 }
    #expect(millions(dense) == 11.685)
    #expect(millions(total) == 12.695)
    #expect(millions(trainable) == 1.188)
  }

  @Test func `a BERT vocabulary is padded to 30720 rows`() {
    #expect(MPOShape.automatic(rows: 30522, columns: 768, sites: 5).rows == 30720)
  }

  @Test(arguments: [2, 3, 4, 5, 7], [(64, 64), (384, 384), (1536, 384), (997, 128), (4096, 11008), (32000, 4096)])
  func `any side is split into balanced factors with little padding`(sites: Int, sides: (Int, Int)) {
    let shape = MPOShape.automatic(rows: sides.0, columns: sides.1, sites: sites)
    #expect(shape.siteCount == sites)
    for (padded, side) in [(shape.rows, sides.0), (shape.columns, sides.1)] {
      #expect(padded >= side && Double(padded) <= 1.0625 * Double(side))
    }
    let dimensions = shape.siteDimensions
    #expect(dimensions[shape.centralIndex] == dimensions.max())
    #expect(dimensions.min()! > 1)
  }

  @Test func `bonds are limited by their neighbours`() throws {
    let shape = try MPOShape(rowFactors: [2, 3, 2], columnFactors: [2, 1, 2])
    #expect(shape.fullBonds == [4, 4])
    #expect(shape.limitedBonds([1, 9]) == [1, 3])
    #expect(shape.limitedBonds([0, 0]) == [1, 1])
    #expect(shape.parameterCount(bonds: [4, 3]) == 16 + 36 + 12)
  }

  @Test func `sites without factors are square cores between two frames, and nowhere else`() throws {
    let deep = try MPOShape(rowFactors: [6, 1, 1, 1], columnFactors: [1, 1, 1, 4])
    #expect(deep == .factored(rows: 6, columns: 4, sites: 4) && deep.isDeep && deep.isFactored)
    #expect(deep.fullBonds == [4, 4, 4] && deep.bonds(ofRank: 3) == [3, 3, 3] && deep.bonds(ofRank: 9) == [4, 4, 4])
    #expect(MPOShape.lowRank(rows: 6, columns: 4).isFactored && !MPOShape.lowRank(rows: 6, columns: 4).isDeep)
    for (rows, columns) in [
      ([6, 1, 1], [2, 1, 4]), ([6, 1, 2], [1, 1, 4]), ([1, 1, 6], [4, 1, 1]), ([6, 1, 1], [1, 4, 1]),
    ] {
      #expect(throws: MPOShapeError.self) { try MPOShape(rowFactors: rows, columnFactors: columns) }
    }
  }

  @Test func `factors that make no shape are refused with the reason`() {
    #expect(throws: MPOShapeError.siteCount(rows: 2, columns: 3)) {
      try MPOShape(rowFactors: [2, 2], columnFactors: [2, 2, 2])
    }
    #expect(throws: MPOShapeError.siteCount(rows: 1, columns: 1)) {
      try MPOShape(rowFactors: [2], columnFactors: [2])
    }
    #expect(throws: MPOShapeError.emptySite(index: 1)) {
      try MPOShape(rowFactors: [2, 1, 2], columnFactors: [2, 1, 2])
    }
    #expect(throws: MPOShapeError.factorOutOfRange(rows: [0, 2], columns: [2, 2])) {
      try MPOShape(rowFactors: [0, 2], columnFactors: [2, 2])
    }
    #expect(throws: MPOShapeError.factorOutOfRange(rows: [1 << 40, 2], columns: [1 << 40, 2])) {
      try MPOShape(rowFactors: [1 << 40, 2], columnFactors: [1 << 40, 2])
    }
  }
}
