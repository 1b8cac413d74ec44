import Foundation
import LinearAlgebra
import TensorNetworks
import Testing

@testable import Squeezing

@Suite struct SqueezePlanTests {
  private static let criteria = SqueezeCriterion.allCases

  // MARK: - Order

  @Test(arguments: criteria, Gauge.allCases)
  func `every step is the cheapest of all admissible ones`(criterion: SqueezeCriterion, gauge: Gauge) throws {
    for seed in [100, 200, 300] as [UInt64] {
      let network = try NetworkProfile.small(seed: seed)
      let groups = [[0], [1], [2]]
      var squeezing = DimensionSqueezing(
        groups: try groups.map { try SqueezeGroup(members: $0, of: network.layers) }, criterion: criterion,
        gauge: gauge)
      var greedy = GreedySqueeze(network.layers, groups: groups, criterion: criterion, gauge: gauge)
      for ratio in [0.97, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4] {
        let allowed = Int(ratio * Double(network.parameters)) - network.denseParameters
        // From one budget straight to the next only where each step is a single one.
        if criterion == .errorPerParameter {
          squeezing = DimensionSqueezing(groups: squeezing.groups, criterion: criterion, gauge: gauge)
          greedy = GreedySqueeze(network.layers, groups: groups, criterion: criterion, gauge: gauge)
        }
        let isReached = squeezing.squeeze(to: allowed)
        let isReachedGreedily = greedy.squeeze(to: allowed)
        #expect(isReached && isReachedGreedily)
        #expect(squeezing.parameters == greedy.parameters && squeezing.parameters <= allowed)
        #expect(groups.indices.map(squeezing.bonds) == greedy.layerBonds, "at ratio \(ratio)")
        if criterion == .error {
          let plan = try SqueezePlan(network, budget: .ratio(ratio), criterion: .error, gauge: gauge)
          #expect(plan.layers.map(\.bonds) == greedy.layerBonds)
        }
      }
    }
  }

  @Test(arguments: criteria)
  func `every step is the cheapest with ties and a least bond too`(criterion: SqueezeCriterion) throws {
    let shape = try MPOShape(rowFactors: [3, 2, 4], columnFactors: [2, 4, 3])
    let layers = try [0.95, 0.7, 0.85, 0.8].enumerated().map {
      try LayerProfile.random("\($0)", shape, decay: $1, scale: Double($0 + 1), seed: UInt64($0) + 50)
    }
    let groups = [[0], [1, 3], [2]]
    for ratio in [0.9, 0.75, 0.6, 0.5] {
      let allowed = Int(ratio * Double(layers.reduce(0) { $0 + $1.denseParameterCount }))
      var squeezing = DimensionSqueezing(
        groups: try groups.map { try SqueezeGroup(members: $0, of: layers) }, criterion: criterion, gauge: .compact,
        minimumBond: 2)
      var greedy = GreedySqueeze(layers, groups: groups, criterion: criterion, minimumBond: 2)
      let isReached = squeezing.squeeze(to: allowed)
      let isReachedGreedily = greedy.squeeze(to: allowed)
      #expect(isReached && isReachedGreedily)
      #expect(groups.indices.map(squeezing.bonds) == groups.map { greedy.layerBonds[$0[0]] }, "at ratio \(ratio)")
    }
  }

  @Test func `a matrix of zeros is squeezed first and at no cost`() throws {
    let shape = try MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2])
    let zero = try LayerProfile(
      "zero", of: Matrix(rows: 24, columns: 16, elements: Array(repeating: 0, count: 384)), shape: shape)
    let other = try LayerProfile.random("other", shape, decay: 0.3, seed: 1)
    let network = NetworkProfile(parameters: 768, tiedParameters: 0, layers: [other, zero])
    for criterion in Self.criteria {
      let plan = try SqueezePlan(network, budget: .ratio(0.55), criterion: criterion)
      #expect(plan.layers[0].bonds == nil)
      #expect(plan.layers[1].bonds != nil)
      #expect(plan.layers[1].relativeErrorBound == 0)
      #expect(plan.ratio <= 0.55)
    }
  }

  @Test(arguments: criteria)
  func `the scale of a matrix does not matter`(criterion: SqueezeCriterion) throws {
    let shape = try MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2])
    func plan(_ scale: Double) throws -> SqueezePlan {
      let layers = [
        try LayerProfile.random("a", shape, scale: scale, seed: 7), try LayerProfile.random("b", shape, seed: 8),
      ]
      let network = NetworkProfile(parameters: 768, tiedParameters: 0, layers: layers)
      return try SqueezePlan(network, budget: .ratio(0.6), criterion: criterion)
    }
    #expect(try plan(1).layers.map(\.bonds) == plan(1024).layers.map(\.bonds))
  }

  @Test(arguments: criteria)
  func `a plan is the same every time and for every order of the matrices`(criterion: SqueezeCriterion) throws {
    let network = try NetworkProfile.small(seed: 9)
    var turned = network
    turned.layers.reverse()
    let plan = try SqueezePlan(network, budget: .ratio(0.6), criterion: criterion)
    #expect(try SqueezePlan(network, budget: .ratio(0.6), criterion: criterion) == plan)
    #expect(
      try SqueezePlan(turned, budget: .ratio(0.6), criterion: criterion).layers.reversed() == plan.layers)
  }

  // MARK: - Ratio

  @Test(arguments: criteria, [11, 12, 13, 14] as [UInt64])
  func `a ratio is met and undercut by less than one step`(criterion: SqueezeCriterion, seed: UInt64) throws {
    let network = try NetworkProfile.small(seed: seed, dense: 37)
    for percent in stride(from: 35, through: 99, by: 4) {
      let ratio = Double(percent) / 100
      let plan = try SqueezePlan(network, budget: .ratio(ratio), criterion: criterion)
      #expect(plan.ratio <= ratio)
      #expect(plan.parametersAfter == 37 + plan.layers.reduce(0) { $0 + $1.parameters })
      #expect(plan.ratio == Double(plan.parametersAfter) / Double(network.parameters))
      let unused = ratio * Double(network.parameters) - Double(plan.parametersAfter)
      let largestStep = plan.layers.flatMap { layer in
        let sites = layer.shape.siteDimensions
        let ends = [1] + (layer.bonds ?? []) + [1]
        return (layer.bonds ?? []).indices.map { ends[$0] * sites[$0] + sites[$0 + 1] * ends[$0 + 2] }
      }.max()
      #expect(unused < Double(try #require(largestStep)) + 1)
    }
  }

  @Test(arguments: criteria)
  func `a ratio that can't be reached is refused with the smallest that can`(criterion: SqueezeCriterion) throws {
    let network = try NetworkProfile.small(seed: 21, dense: 50)
    // Every bond at 1: the sum of the sites, less one for each bond, plus what is not decomposed.
    let least =
      50 + network.layers.reduce(0) { $0 + $1.shape.siteDimensions.reduce(0, +) - ($1.shape.siteCount - 1) }
    let smallest = Double(least) / Double(network.parameters)
    #expect(throws: SqueezeError.ratioOutOfReach(asked: 0.01, smallest: smallest)) {
      try SqueezePlan(network, budget: .ratio(0.01), criterion: criterion)
    }
    let plan = try SqueezePlan(network, budget: .ratio(smallest), criterion: criterion)
    #expect(plan.parametersAfter == least)
    #expect(plan.layers.allSatisfy { $0.bonds?.allSatisfy { $0 == 1 } == true })
    #expect(throws: SqueezeError.self) {
      try SqueezePlan(
        network, budget: .ratio(Double(least - 1) / Double(network.parameters)), criterion: criterion)
    }
  }

  @Test func `the smallest ratio of the message can be asked for, whatever it rounds to`() throws {
    let shape = MPOShape.lowRank(rows: 10, columns: 10)
    let layer = try LayerProfile.random("w", shape, seed: 3)
    for dense in 0..<200 {
      let network = NetworkProfile(parameters: 100 + dense, tiedParameters: 0, layers: [layer])
      let error = #expect(throws: SqueezeError.self) { try SqueezePlan(network, budget: .ratio(0.001)) }
      guard case .ratioOutOfReach(_, let smallest)? = error else {
        Issue.record("\(String(describing: error))")
        continue
      }
      #expect(throws: Never.self) { try SqueezePlan(network, budget: .ratio(smallest)) }
      let words = "\(try #require(error))".split(separator: " ")
      let place = try #require(words.firstIndex(of: "of"))
      let printed = try #require(Double(words[place - 1]))
      #expect(printed >= smallest && printed < smallest + 1e-4 + 1e-12)
      #expect(throws: Never.self) { try SqueezePlan(network, budget: .ratio(printed)) }
    }
  }

  @Test func `a least bond raises the smallest ratio`() throws {
    let network = try NetworkProfile.small(seed: 22, dense: 0)
    for criterion in Self.criteria {
      let least = network.layers.reduce(0) { sum, layer in
        sum + layer.shape.storedCount(bonds: layer.shape.fullBonds.map { min($0, 3) }, gauge: .compact)
      }
      #expect(
        throws: SqueezeError.ratioOutOfReach(
          asked: 0.01, smallest: Double(least) / Double(network.parameters))
      ) { try SqueezePlan(network, budget: .ratio(0.01), criterion: criterion, minimumBond: 3) }
    }
  }

  @Test(arguments: criteria)
  func `no bond is lowered below the least one`(criterion: SqueezeCriterion) throws {
    let network = try NetworkProfile.small(seed: 23)
    for budget in [Budget.ratio(0.6), .maximumError(0.9)] {
      let plan = try SqueezePlan(network, budget: budget, criterion: criterion, minimumBond: 3)
      for layer in plan.layers {
        for (bond, full) in zip(layer.bonds ?? [], layer.shape.fullBonds) { #expect(bond >= min(3, full)) }
      }
    }
  }

  @Test(arguments: criteria)
  func `a ratio of one or more keeps everything dense`(criterion: SqueezeCriterion) throws {
    let network = try NetworkProfile.small(seed: 24)
    for ratio in [1, 1.5, 1000] {
      let plan = try SqueezePlan(network, budget: .ratio(ratio), criterion: criterion)
      #expect(plan.layers.allSatisfy { $0.bonds == nil && $0.relativeErrorBound == 0 })
      #expect(plan.parametersAfter == network.parameters)
    }
  }

  @Test(arguments: criteria)
  func `a matrix whose cores are not smaller stays dense`(criterion: SqueezeCriterion) throws {
    // In canonical form rank 1 alone takes 3 + 3 numbers of 9, every other rank more than the matrix.
    let tiny = try LayerProfile.random("tiny", .lowRank(rows: 3, columns: 3), seed: 1)
    let large = try LayerProfile.random("large", .lowRank(rows: 20, columns: 20), seed: 2)
    let network = NetworkProfile(parameters: 409, tiedParameters: 0, layers: [tiny, large])
    for ratio in stride(from: 0.15, through: 0.95, by: 0.1) {
      for gauge in Gauge.allCases {
        let plan = try SqueezePlan(network, budget: .ratio(ratio), criterion: criterion, gauge: gauge)
        for layer in plan.layers {
          #expect(layer.parameters <= layer.rows * layer.columns)
          #expect((layer.bonds == nil) == (layer.parameters == layer.rows * layer.columns))
        }
      }
    }
    // 2 × 2 gets smaller in compact form alone: 2 + 2 − 1 numbers at rank 1.
    let square = try LayerProfile.random("square", .lowRank(rows: 2, columns: 2), seed: 3)
    let alone = NetworkProfile(parameters: 4, tiedParameters: 0, layers: [square])
    func plan(_ budget: Budget, _ gauge: Gauge) throws -> SqueezePlan {
      try SqueezePlan(alone, budget: budget, criterion: criterion, gauge: gauge)
    }
    #expect(throws: SqueezeError.ratioOutOfReach(asked: 0.9, smallest: 1)) { try plan(.ratio(0.9), .canonical) }
    #expect(try plan(.maximumError(0.99), .canonical).layers[0].bonds == nil)
    #expect(try plan(.bond(1), .canonical).layers[0].bonds == nil)
    for budget in [Budget.ratio(0.9), .maximumError(0.99), .bond(1)] {
      #expect(try plan(budget, .compact).parametersAfter == 3)
    }
  }

  @Test func `tied tensors are not parameters of the result`() throws {
    let layer = try LayerProfile.random("w", .lowRank(rows: 20, columns: 20), seed: 4)
    let network = NetworkProfile(parameters: 1000, tiedParameters: 400, layers: [layer])
    #expect(network.denseParameters == 200)
    let plan = try SqueezePlan(network, budget: .ratio(0.4))
    // 5 · (20 + 20 − 5) = 175 of the 200 that are left.
    #expect(plan.layers[0].bonds == [5])
    #expect(plan.parametersAfter == 375)
  }

  // MARK: - Other budgets

  @Test(arguments: criteria, [0.01, 0.1, 0.3, 0.7])
  func `a maximum error holds for every matrix`(criterion: SqueezeCriterion, error: Double) throws {
    let network = try NetworkProfile.small(seed: 31)
    let plan = try SqueezePlan(network, budget: .maximumError(error), criterion: criterion)
    for (layer, planned) in zip(network.layers, plan.layers) {
      #expect(try #require(planned.relativeErrorBound) <= error)
      guard let bonds = planned.bonds else { continue }
      #expect(planned.relativeErrorBound == layer.relativeErrorBound(bonds: bonds))
      #expect(layer.shape.limitedBonds(bonds) == bonds)
      // It does not stop early: some admissible step goes beyond the maximum.
      let next = bonds.indices.map { bond in bonds.enumerated().map { $1 - ($0 == bond ? 1 : 0) } }
        .filter { $0.allSatisfy { $0 > 0 } && layer.shape.limitedBonds($0) == $0 }
      #expect(next.isEmpty || next.contains { layer.relativeErrorBound(bonds: $0) ?? 0 > error })
    }
    #expect(plan.layers.contains { $0.bonds != nil } || error == 0.01)
  }

  @Test func `a maximum error holds for every member of a tie`() throws {
    let shape = try MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2])
    let layers = [
      try LayerProfile.random("steep", shape, decay: 0.4, seed: 5),
      try LayerProfile.random("flat", shape, decay: 0.99, seed: 6),
    ]
    let network = NetworkProfile(parameters: 768, tiedParameters: 0, layers: layers)
    let plan = try SqueezePlan(network, budget: .maximumError(0.6), ties: [[0, 1]])
    #expect(plan.layers[0].bonds == plan.layers[1].bonds)
    #expect(plan.layers.allSatisfy { $0.relativeErrorBound ?? 1 <= 0.6 })
  }

  @Test(arguments: [1, 2, 5, 1000])
  func `a bond dimension caps every bond`(cap: Int) throws {
    let network = try NetworkProfile.small(seed: 32)
    let plan = try SqueezePlan(network, budget: .bond(cap))
    for (layer, planned) in zip(network.layers, plan.layers) {
      let expected = layer.shape.limitedBonds(layer.shape.fullBonds.map { min($0, cap) })
      let isSmaller = layer.shape.storedCount(bonds: expected, gauge: .compact) < layer.denseParameterCount
      #expect(planned.bonds == (isSmaller ? expected : nil))
    }
  }

  @Test(arguments: [1, 2, 3, 7])
  func `lossless keeps every bond at its numerical rank`(rank: Int) throws {
    let shape = try MPOShape(rowFactors: [2, 12], columnFactors: [16, 1])
    let lowRank =
      Matrix<Double>.random(rows: 24, columns: rank, seed: 41)
      * Matrix<Double>.random(rows: rank, columns: 16, seed: 42)
    // Across the bond of this shape the matrix is [2·16, 12]: a product of rank `rank` has rank min(2·rank, 12) there.
    let layers = [
      try LayerProfile("two sides", of: lowRank, shape: .lowRank(rows: 24, columns: 16)),
      try LayerProfile("other cut", of: lowRank, shape: shape),
      try LayerProfile(
        "zero", of: Matrix(rows: 24, columns: 16, elements: Array(repeating: 0, count: 384)), shape: shape),
      try LayerProfile.random("full", shape, decay: 1, seed: 43),
    ]
    let network = NetworkProfile(parameters: 4 * 384, tiedParameters: 0, layers: layers)
    let plan = try SqueezePlan(network, budget: .lossless)
    #expect(plan.layers.map(\.bonds) == [[rank], [min(2 * rank, 12)], [1], [12]])
    #expect(plan.layers.allSatisfy { $0.relativeErrorBound ?? 1 < 1e-6 })
  }

  // MARK: - Ties

  @Test(arguments: criteria)
  func `tied matrices get the same bonds`(criterion: SqueezeCriterion) throws {
    let shape = try MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2])
    let layers = try (0..<6).map {
      try LayerProfile.random("\($0)", shape, decay: 0.5 + 0.08 * Double($0), seed: UInt64($0))
    }
    let network = NetworkProfile(parameters: 6 * 384, tiedParameters: 0, layers: layers)
    for budget in [Budget.ratio(0.6), .ratio(0.3), .maximumError(0.5)] {
      let plan = try SqueezePlan(network, budget: budget, criterion: criterion, ties: [[4, 0], [2, 3, 5], []])
      #expect(plan.layers[0].bonds == plan.layers[4].bonds)
      #expect(plan.layers[2].bonds == plan.layers[3].bonds && plan.layers[3].bonds == plan.layers[5].bonds)
      if case .ratio(let ratio) = budget { #expect(plan.ratio <= ratio) }
    }
    let free = try SqueezePlan(network, budget: .ratio(0.6), criterion: criterion)
    #expect(free.layers[2].bonds != free.layers[5].bonds)
  }

  @Test func `ties of different shapes or sides are refused`() throws {
    let shape = try MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2])
    let a = try LayerProfile.random("a", shape, seed: 1)
    let turned = try LayerProfile.random(
      "turned", MPOShape(rowFactors: [4, 3, 2], columnFactors: [2, 4, 2]), seed: 2)
    let clipped = try LayerProfile("clipped", of: .random(rows: 23, columns: 16, seed: 3), shape: shape)
    for other in [turned, clipped] {
      let network = NetworkProfile(parameters: 1000, tiedParameters: 0, layers: [a, other])
      #expect(throws: SqueezeError.tiedShapesDiffer("a", other.name)) {
        try SqueezePlan(network, budget: .ratio(0.5), ties: [[0, 1]])
      }
      #expect(throws: Never.self) { try SqueezePlan(network, budget: .ratio(0.9)) }
    }
  }

  // MARK: - Profiles from files

  @Test func `a profile that contradicts itself is refused`() throws {
    let good = try LayerProfile.random("w", MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2]), seed: 1)
    let spectra = try #require(good.spectra).spectra
    let singularValues = try #require(good.singularValues)
    let bad: [LayerProfile] = [
      good.with(rows: 0, singularValues: []),
      good.with(rows: 25),
      good.with(columns: 17),
      good.with(norm: -1),
      good.with(norm: .infinity),
      good.with(norm: .nan),
      good.with(spectra: Array(spectra.dropLast())),
      good.with(spectra: spectra.map { Array($0.dropLast()) }),
      good.with(spectra: spectra + [[1]]),
      good.with(spectra: spectra.map { $0.map { -$0 } }),
      good.with(spectra: spectra.map { $0.map { _ in .nan } }),
      good.with(singularValues: []),
      good.with(singularValues: singularValues + [0]),
      good.with(singularValues: singularValues.map { _ in .infinity }),
    ]
    for (index, layer) in bad.enumerated() {
      let network = NetworkProfile(parameters: 1000, tiedParameters: 0, layers: [good, layer])
      for budget in [Budget.ratio(0.9), .maximumError(0.5), .bond(2), .lossless] {
        #expect(throws: SqueezeError.inconsistentProfile(layer: "w"), "case \(index)") {
          try SqueezePlan(network, budget: budget)
        }
      }
    }
  }

  @Test func `totals that contradict the matrices are refused`() throws {
    let layer = try LayerProfile.random("w", .lowRank(rows: 20, columns: 20), seed: 1)
    // 2^60 × 2: consistent by itself, too large to be added up.
    let huge = LayerProfile(
      name: "huge", split: .lowRank(rows: 1 << 60, columns: 2), norm: 1, spectra: SingularSpectra([[1, 0]]),
      singularValues: [1, 0])
    let networks = [
      NetworkProfile(parameters: 399, tiedParameters: 0, layers: [layer]),
      NetworkProfile(parameters: 400, tiedParameters: 1, layers: [layer]),
      NetworkProfile(parameters: 400, tiedParameters: -1, layers: [layer]),
      NetworkProfile(parameters: -1, tiedParameters: 0, layers: []),
      NetworkProfile(parameters: .min, tiedParameters: .max, layers: [layer]),
      NetworkProfile(parameters: .max, tiedParameters: 0, layers: Array(repeating: huge, count: 9)),
    ]
    for (index, network) in networks.enumerated() {
      for budget in [Budget.ratio(0.9), .maximumError(0.5), .bond(2), .lossless] {
        #expect(throws: SqueezeError.inconsistentTotals, "case \(index)") {
          try SqueezePlan(network, budget: budget)
        }
      }
    }
  }

  @Test func `messages are one line and name the layer and the remedy`() {
    let messages: [(SqueezeError, [String])] = [
      (.ratioOutOfReach(asked: 0.1, smallest: 0.25), ["0.1", "0.25", "choose a larger ratio"]),
      (.inconsistentProfile(layer: "a.weight"), ["'a.weight'", "make the profile again"]),
      (.inconsistentTotals, ["make the profile again"]),
      (.profileLacks(.spectra, layer: "a"), ["singular spectra", "'a'", "again for this structure"]),
      (.minimumBondAboveBond(minimum: 8, bond: 6), ["6", "8"]),
      (.tiedShapesDiffer("a", "b"), ["'a'", "'b'", "tie matrices of one shape"]),
    ]
    for (error, parts) in messages {
      #expect(!"\(error)".contains("\n"))
      for part in parts { #expect("\(error)".contains(part)) }
    }
  }

  // MARK: - Files

  @Test(arguments: [Budget.ratio(0.6), .maximumError(0.2), .bond(3), .lossless])
  func `profiles and plans survive JSON unchanged`(budget: Budget) throws {
    let network = try NetworkProfile.small(seed: 61)
    let plan = try SqueezePlan(network, budget: budget, criterion: .error)
    let encoder = JSONEncoder()
    let decoder = JSONDecoder()
    #expect(try decoder.decode(NetworkProfile.self, from: encoder.encode(network)) == network)
    #expect(try decoder.decode(SqueezePlan.self, from: encoder.encode(plan)) == plan)
    #expect(plan.budget == budget.description)
    #expect(plan.criterion == .error)
  }

  @Test func `a plan carries what is known of each matrix`() throws {
    let network = try NetworkProfile.small(seed: 62)
    let plan = try SqueezePlan(network, budget: .ratio(0.5))
    for (layer, planned) in zip(network.layers, plan.layers) {
      #expect(planned.name == layer.name && planned.rows == layer.rows && planned.columns == layer.columns)
      #expect(planned.split == layer.split && planned.norm == layer.norm)
      #expect(planned.entropies == layer.spectra?.entanglementEntropies)
      #expect(planned.svdRelativeError == layer.svdRelativeError(parameters: planned.parameters))
    }
  }
}
