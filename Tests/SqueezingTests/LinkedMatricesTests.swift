import LinearAlgebra
import TensorNetworks
import TestSupport
import Testing

@testable import Squeezing

@Suite struct LinkedMatricesTests {
  /// Matrices that have most of their inputs' directions in common, and one that has not; `alike` and `like` may be linked.
  private func network(common: Double = 0.95, members: [String] = ["alike", "like"]) throws -> NetworkProfile {
    let shared = Matrix<Double>.random(rows: 6, columns: 24, seed: 1)
    let matrices = try ["alike", "like", "other"].enumerated().map { index, name in
      let own = Matrix<Double>.random(rows: 20, columns: 24, decay: 0.9, scale: 1 - common, seed: UInt64(10 + index))
      var matrix = Matrix<Double>.random(rows: 20, columns: 6, scale: common, seed: UInt64(20 + index)) * shared
      // Without anything in common each falls off the other way.
      for row in 0..<20 {
        for column in 0..<24 {
          matrix[row, column] += own[row, common == 0 && index == 1 ? 23 - column : column]
        }
      }
      return (name, matrix)
    }
    let layers = try matrices.map {
      try LayerProfile($0.0, of: $0.1, shape: MPOShape(rowFactors: [4, 5], columnFactors: [4, 6]))
    }
    let linked = matrices.filter { members.contains($0.0) }
    let errors = try SharedFactorization(
      linked.map {
        SharedFactorization.Member(
          matrix: $0.1, rows: .identity, columns: .identity, weight: 480 / ($0.1.norm * $0.1.norm))
      }
    ).squaredErrors()
    return NetworkProfile(
      parameters: 3 * 480 + 100, tiedParameters: 0, layers: layers,
      links: [LinkProfile(name: "{a}", members: linked.map(\.0), stacking: .rows, squaredErrors: errors)])
  }

  private func error(_ plan: SqueezePlan) -> Double {
    plan.layers.reduce(0) { sum, layer in
      sum + (layer.relativeErrorBound ?? .infinity) * (layer.relativeErrorBound ?? .infinity)
        * Double(layer.rows * layer.columns)
    }
  }

  @Test(arguments: [MatrixStructure.auto, .svd], Gauge.allCases)
  func `what has its inputs in common becomes one operator, counted once, with less error`(
    structure: MatrixStructure, gauge: Gauge
  ) throws {
    var network = try network()
    let plan = try SqueezePlan(network, budget: .matrixRatio(0.5), structure: structure, gauge: gauge)
    let link = try #require(plan.links?.first)
    #expect(link.name == "{a}" && link.members == ["alike", "like"] && link.stacking == .rows)
    #expect(link.split == .lowRank(rows: 40, columns: 24))
    let linked = plan.layers.filter { $0.link != nil }
    #expect(linked.map(\.name) == ["alike", "like"] && linked.allSatisfy { $0.bonds == link.bonds })
    #expect(
      linked.reduce(0) { $0 + $1.parameters } == link.split.shape.storedCount(bonds: link.bonds, gauge: link.gauge))
    #expect(plan.matrixRatio <= 0.5)
    network.links = nil
    let apart = try SqueezePlan(network, budget: .matrixRatio(0.5), structure: structure, gauge: gauge)
    #expect(apart.links == nil && apart.matrixRatio <= 0.5)
    #expect(error(plan) < 0.85 * error(apart))
  }

  @Test(arguments: [0.9, 0.8, 0.6, 0.4, 0.2])
  func `matrices that have nothing in common stay apart, with the plan they had`(ratio: Double) throws {
    var network = try network(common: 0)
    let plan = try SqueezePlan(network, budget: .matrixRatio(ratio), structure: .svd)
    network.links = nil
    let apart = try SqueezePlan(network, budget: .matrixRatio(ratio), structure: .svd)
    #expect(plan == apart)
  }

  @Test func `a maximum error holds for each of the linked matrices`() throws {
    for maximum in [0.05, 0.1, 0.3] {
      var network = try network()
      let plan = try SqueezePlan(network, budget: .maximumError(maximum), structure: .svd)
      #expect(plan.layers.allSatisfy { $0.relativeErrorBound ?? 1 <= maximum })
      network.links = nil
      let apart = try SqueezePlan(network, budget: .maximumError(maximum), structure: .svd)
      #expect(plan.parametersAfter <= apart.parametersAfter)
    }
    let plan = try SqueezePlan(network(), budget: .maximumError(0.1), structure: .svd)
    #expect(plan.links != nil)
  }

  @Test func `links that contradict the layers are refused`() throws {
    let network = try network()
    let link = try #require(network.links?.first)
    func plan(_ links: [LinkProfile], ties: [[Int]] = []) throws {
      var changed = network
      changed.links = links
      _ = try SqueezePlan(changed, budget: .ratio(0.6), ties: ties, structure: .svd)
    }
    func changed(members: [String]? = nil, errors: [[Double]]? = nil) -> LinkProfile {
      LinkProfile(
        name: "{a}", members: members ?? link.members, stacking: .rows, squaredErrors: errors ?? link.squaredErrors)
    }
    #expect(throws: Never.self) { try plan([link]) }
    let expected = SqueezeError.inconsistentProfile(layer: "{a}")
    #expect(throws: expected) { try plan([link, link]) }
    #expect(throws: expected) { try plan([link], ties: [[0, 2]]) }
    #expect(throws: expected) { try plan([changed(members: ["alike", "missing"])]) }
    #expect(throws: expected) { try plan([changed(members: ["alike"])]) }
    #expect(throws: expected) { try plan([changed(errors: [link.squaredErrors[0]])]) }
    #expect(throws: expected) { try plan([changed(errors: link.squaredErrors.map { $0.map { _ in .nan } })]) }
    #expect(throws: expected) { try plan([changed(errors: link.squaredErrors.map { Array($0.dropLast()) })]) }
  }
}
