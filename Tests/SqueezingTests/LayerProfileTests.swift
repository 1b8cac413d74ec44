import Foundation
import LinearAlgebra
import Squeezing
import TensorNetworks
import Testing

@Suite struct LayerProfileTests {
  @Test(arguments: Gauge.allCases)
  func `the error of truncated SVD is that of the largest rank that fits`(gauge: Gauge) throws {
    let shape = MPOShape.lowRank(rows: 12, columns: 20)
    let layer = try LayerProfile.random("w", shape, decay: 0.8, seed: 1)
    let values = try #require(layer.singularValues)
    #expect(values.count == 12)
    #expect(abs(values.reduce(0) { $0 + $1 * $1 }.squareRoot() - layer.norm) < 1e-10 * layer.norm)
    for rank in 1...12 {
      let tail = values.dropFirst(rank).reduce(0) { $0 + $1 * $1 }.squareRoot() / layer.norm
      let count = shape.storedCount(bonds: [rank], gauge: gauge)
      let error = try #require(layer.svdRelativeError(parameters: count, gauge: gauge))
      #expect(abs(error - tail) < 1e-12)
      let next = rank < 12 ? shape.storedCount(bonds: [rank + 1], gauge: gauge) : 1000
      #expect(layer.svdRelativeError(parameters: next - 1, gauge: gauge) == error)
    }
    #expect(abs(try #require(layer.svdRelativeError(parameters: 0, gauge: gauge)) - 1) < 1e-12)
    #expect(layer.svdRelativeError(parameters: 1_000_000, gauge: gauge) == 0)
  }

  @Test func `the two-site shape is truncated SVD`() throws {
    let layer = try LayerProfile.random("w", .lowRank(rows: 12, columns: 20), decay: 0.8, seed: 2)
    for rank in 1...12 {
      let bound = try #require(layer.relativeErrorBound(bonds: [rank]))
      #expect(abs(bound - layer.svdRelativeError(parameters: (32 - rank) * rank)!) < 1e-7)
    }
  }

  @Test func `a matrix of zeros has no error`() throws {
    let zero = try LayerProfile(
      "zero", of: Matrix(rows: 4, columns: 6, elements: Array(repeating: 0, count: 24)),
      shape: .lowRank(rows: 4, columns: 6))
    #expect(zero.relativeErrorBound(bonds: [1]) == 0)
    #expect(zero.svdRelativeError(parameters: 0) == 0)
  }

  @Test(arguments: MatrixStructure.allCases, [Budget.ratio(0.7), .maximumError(0.3), .lossless, .bond(3)])
  func `a plan asks for the parts that it needs, and for no others`(
    structure: MatrixStructure, budget: Budget
  ) throws {
    let whole = try LayerProfile.random("w", MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2]), seed: 3)
    func plan(_ parts: Set<LayerProfile.Measurement>) throws -> SqueezePlan {
      let layer = LayerProfile(
        name: "w", split: whole.split, norm: whole.norm, spectra: parts.contains(.spectra) ? whole.spectra : nil,
        singularValues: parts.contains(.singularValues) ? whole.singularValues : nil,
        metricSingularValues: parts.contains(.metricSingularValues) ? whole.singularValues : nil)
      let network = NetworkProfile(parameters: 384, tiedParameters: 0, layers: [layer])
      let plan = try SqueezePlan(network, budget: budget, structure: structure)
      #expect(try JSONDecoder().decode(NetworkProfile.self, from: JSONEncoder().encode(network)) == network)
      #expect(try JSONDecoder().decode(SqueezePlan.self, from: JSONEncoder().encode(plan)) == plan)
      return plan
    }
    for hasMetric in [false, true] {
      let needed = LayerProfile.measurements(for: structure, budget, hasMetric: hasMetric)
      let layer = try plan(needed).layers[0]
      #expect((layer.relativeErrorBound != nil) == (layer.bonds == nil || budget != .bond(3)))
      #expect((layer.svdRelativeError != nil) == needed.contains(.singularValues))
      // Without its metric a matrix is one that never had any, which needs other parts.
      for part in needed where part != .metricSingularValues {
        #expect(throws: SqueezeError.profileLacks(part, layer: "w")) { try plan(needed.subtracting([part])) }
      }
    }
  }
}
