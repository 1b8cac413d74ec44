import LinearAlgebra
import TensorNetworks
import Testing

@testable import Squeezing

/// The budgets that give the bonds outright: a bond dimension, and lossless.
@Suite struct GivenBondTests {
  private let shape: MPOShape
  private let network: NetworkProfile

  init() throws {
    let shape = try MPOShape(rowFactors: [2, 12], columnFactors: [16, 1])
    // A matrix of rank r has rank min(2r, 12) across the bond of this shape.
    let layers = try [2, 5, 16].enumerated().map { index, rank in
      try LayerProfile(
        "rank \(rank)",
        of: Matrix<Double>.random(rows: 24, columns: rank, seed: UInt64(index) + 1)
          * .random(rows: rank, columns: 16, seed: UInt64(index) + 11), shape: shape)
    }
    self.shape = shape
    network = NetworkProfile(parameters: 3 * 384, tiedParameters: 0, layers: layers)
  }

  @Test(arguments: MatrixStructure.allCases)
  func `lossless gives tied matrices the bonds of the largest rank`(structure: MatrixStructure) throws {
    let free = try SqueezePlan(network, budget: .lossless, structure: structure)
    let tied = try SqueezePlan(network, budget: .lossless, ties: [[1, 0]], structure: structure)
    #expect(free.layers[0].bonds != free.layers[1].bonds)
    #expect(tied.layers[0].bonds == free.layers[1].bonds && tied.layers[1].bonds == free.layers[1].bonds)
    #expect(tied.layers[2] == free.layers[2])
    #expect(tied.layers.allSatisfy { $0.relativeErrorBound ?? 1 < 1e-6 })
  }

  @Test func `lossless keeps the least bond, as far as the shape allows`() throws {
    let plan = try SqueezePlan(network, budget: .lossless, minimumBond: 6)
    let free = try SqueezePlan(network, budget: .lossless)
    for (layer, free) in zip(plan.layers, free.layers) {
      let expected = zip(try #require(free.bonds), shape.fullBonds).map { max($0, min(6, $1)) }
      #expect(layer.bonds == expected)
    }
    #expect(plan.layers[0].bonds != free.layers[0].bonds)
  }

  @Test func `lossless is never larger than the matrix in the gauge compact, whatever the padding`() throws {
    let full = try LayerProfile.random("full", shape, decay: 1, seed: 5)
    let padded = try LayerProfile("padded", of: .random(rows: 23, columns: 15, seed: 6), shape: shape)
    let network = NetworkProfile(parameters: 384 + 345, tiedParameters: 0, layers: [full, padded])
    for structure in MatrixStructure.allCases {
      let plan = try SqueezePlan(network, budget: .lossless, structure: structure)
      #expect(plan.ratio == 1)
      #expect(plan.layers[0].bonds != nil)
      // A chain of the padded matrix takes 384 numbers, a factorisation 345.
      #expect((plan.layers[1].bonds == nil) == (structure == .chain))
    }
    let canonical = try SqueezePlan(network, budget: .lossless, gauge: .canonical)
    #expect(canonical.layers.allSatisfy { $0.bonds == shape.fullBonds })
  }

  @Test(arguments: MatrixStructure.allCases)
  func `a bond is the same for tied matrices and at least the least bond`(structure: MatrixStructure) throws {
    let plan = try SqueezePlan(network, budget: .bond(5), ties: [[0, 2]], minimumBond: 5, structure: structure)
    for layer in plan.layers {
      let expected = structure == .svd ? MPOShape.lowRank(rows: 24, columns: 16) : shape
      #expect(layer.shape == expected && layer.bonds == expected.fullBonds.map { min($0, 5) })
    }
  }

  @Test func `a least bond above the bond is refused with both`() throws {
    let error = #expect(throws: SqueezeError.minimumBondAboveBond(minimum: 8, bond: 6)) {
      try SqueezePlan(network, budget: .bond(6), minimumBond: 8)
    }
    let message = "\(try #require(error))"
    #expect(message.contains("6") && message.contains("8") && !message.contains("--"))
  }

  @Test func `a bond needs no spectra, and says nothing of the error then`() throws {
    let layer = LayerProfile(name: "w", split: MatrixSplit(rows: 24, columns: 16, shape: shape), norm: 1)
    let plan = try SqueezePlan(
      NetworkProfile(parameters: 384, tiedParameters: 0, layers: [layer]), budget: .bond(3))
    #expect(plan.layers[0].bonds == [3])
    #expect(plan.layers[0].relativeErrorBound == nil && plan.layers[0].entropies == nil)
  }
}
