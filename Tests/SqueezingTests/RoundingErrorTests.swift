import Foundation
import TensorNetworks
import Testing

@testable import Squeezing

@Suite struct RoundingErrorTests {
  private func network(decay: Double) throws -> NetworkProfile {
    let shape = try MPOShape(rowFactors: [4, 2, 4], columnFactors: [4, 2, 4])
    let layers = try (0..<3).map {
      try LayerProfile.random("\($0)", shape, decay: decay, scale: Double($0 + 1), seed: UInt64($0))
    }
    return NetworkProfile(parameters: 3 * 1024, tiedParameters: 0, layers: layers)
  }

  @Test func `the measured errors are those of two and of five sites, in between on a line`() {
    let error = RoundingError.bfloat16
    #expect(error.relativeError(gauge: .compact, sites: 2) == 6.2e-3)
    #expect(error.relativeError(gauge: .compact, sites: 5) == 1.1e-2)
    #expect(error.relativeError(gauge: .canonical, sites: 9) == 2.9e-3)
    #expect(abs(error.relativeError(gauge: .spectral, sites: 3) - (2 * 2.4e-3 + 2.9e-3) / 3) < 1e-15)
    for gauge in Gauge.allCases {
      #expect(RoundingError.negligible.relativeError(gauge: gauge, sites: 3) == 0)
    }
  }

  @Test(arguments: [MatrixStructure.chain, .svd])
  func `small truncation errors take the gauge that rounds less, large ones the one that stores less`(
    structure: MatrixStructure
  ) throws {
    func cores(decay: Double, _ ratio: Double) throws -> [SqueezePlan.Layer] {
      try SqueezePlan(network(decay: decay), budget: .ratio(ratio), structure: structure, rounding: .bfloat16)
        .layers.filter { $0.bonds != nil }
    }
    // Steep spectra: next to nothing is truncated, rounding is all of the error.
    let steep = try cores(decay: 0.3, 0.7)
    #expect(!steep.isEmpty && steep.allSatisfy { $0.gauge == .canonical })
    let flat = try cores(decay: 1, 0.5)
    #expect(!flat.isEmpty && flat.allSatisfy { $0.gauge == .compact })
    for layer in steep + flat {
      let bonds = try #require(layer.bonds)
      #expect(layer.parameters == layer.shape.storedCount(bonds: bonds, gauge: layer.gauge))
    }
  }

  @Test(arguments: [Gauge.canonical, .spectral])
  func `a gauge that is asked for is kept`(gauge: Gauge) throws {
    let plan = try SqueezePlan(network(decay: 0.9), budget: .ratio(0.6), gauge: gauge, rounding: .bfloat16)
    #expect(plan.layers.allSatisfy { $0.gauge == gauge })
  }

  @Test func `without rounding everything is compact`() throws {
    let plan = try SqueezePlan(network(decay: 0.3), budget: .ratio(0.8))
    #expect(plan.layers.allSatisfy { $0.gauge == .compact })
  }

  @Test func `a maximum error is one of truncation and rounding together`() throws {
    let network = try network(decay: 0.5)
    let plan = try SqueezePlan(network, budget: .maximumError(5e-3), rounding: .bfloat16)
    for (layer, profile) in zip(plan.layers, network.layers) {
      let bonds = try #require(layer.bonds)
      let truncation = try #require(profile.relativeErrorBound(bonds: bonds))
      let rounding = RoundingError.bfloat16.relativeError(gauge: layer.gauge, sites: 3)
      let error = try #require(layer.relativeErrorBound)
      #expect(abs(error - hypot(truncation, rounding)) < 1e-12 && error <= 5e-3)
    }
    // Below what rounding alone costs nothing is possible but to stay dense.
    let dense = try SqueezePlan(network, budget: .maximumError(2e-3), rounding: .bfloat16)
    #expect(dense.layers.allSatisfy { $0.bonds == nil && $0.relativeErrorBound == 0 })
  }

  @Test func `in a metric the factorisation with as many numbers stands for a chain`() throws {
    let plain = try network(decay: 0.9)
    var measured = plain
    measured.layers = plain.layers.map {
      LayerProfile(
        name: $0.name, split: $0.split, norm: $0.norm, spectra: $0.spectra,
        metricSingularValues: $0.singularValues?.map { 3 * $0 })
    }
    let plan = try SqueezePlan(measured, budget: .ratio(0.6))
    for (layer, profile) in zip(plan.layers, plain.layers) {
      let bonds = try #require(layer.bonds)
      #expect(layer.shape == profile.shape && bonds.count == 2)
      // Between the ranks r(64 − r) that have as many numbers.
      let error = try #require(layer.relativeErrorBound)
      let svd = try #require(profile.svdRelativeError(parameters: layer.parameters))
      let rank = (1...32).last { $0 * (64 - $0) <= layer.parameters } ?? 0
      let next = try #require(profile.svdRelativeError(parameters: (rank + 1) * (63 - rank)))
      #expect(error <= svd * (1 + 1e-12) && error >= next * (1 - 1e-12))
    }
  }
}
