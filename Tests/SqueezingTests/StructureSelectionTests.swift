import Foundation
import TensorNetworks
import Testing

@testable import Squeezing

@Suite struct StructureSelectionTests {
  private func network() throws -> NetworkProfile {
    let square = try MPOShape(rowFactors: [4, 2, 4], columnFactors: [4, 2, 4])
    let wide = try MPOShape(rowFactors: [2, 4, 2], columnFactors: [4, 4, 4])
    let layers = [
      try LayerProfile.random("steep", square, decay: 0.8, seed: 1),
      try LayerProfile.random("flat", square, decay: 1, seed: 2),
      try LayerProfile.random("wide", wide, decay: 0.95, scale: 100, seed: 3),
    ]
    return NetworkProfile(
      parameters: 5000 + layers.reduce(0) { $0 + $1.denseParameterCount }, tiedParameters: 0, layers: layers)
  }

  /// What the plan minimises: the mean squared relative error of all weights.
  private func error(_ plan: SqueezePlan) -> Double {
    plan.layers.reduce(0) { $0 + pow($1.relativeErrorBound ?? .infinity, 2) * Double($1.rows * $1.columns) }
  }

  // Ratios that take many steps: the last one, off the hull, costs a few per cent of so small a network.
  @Test(arguments: [0.8, 0.75, 0.7])
  func `auto meets the ratio and is no worse than either structure alone`(ratio: Double) throws {
    let network = try network()
    let plans = try MatrixStructure.allCases.map { try SqueezePlan(network, budget: .ratio(ratio), structure: $0) }
    for plan in plans { #expect(plan.ratio <= ratio) }
    let errors = Dictionary(uniqueKeysWithValues: zip(MatrixStructure.allCases, plans.map(error)))
    // The last step to the budget is not on the hull, which may cost a little.
    #expect(errors[.auto]! <= 1.02 * min(errors[.svd]!, errors[.chain]!) + 1e-12)
  }

  @Test(arguments: MatrixStructure.allCases, Gauge.allCases)
  func `every budget is met, none is left unused that could be used, and more of it costs no error`(
    structure: MatrixStructure, gauge: Gauge
  ) throws {
    let network = try network()
    var previous = Double.infinity
    for percent in stride(from: 88, through: 100, by: 1) {
      let ratio = Double(percent) / 100
      let plan = try SqueezePlan(network, budget: .ratio(ratio), structure: structure, gauge: gauge)
      #expect(plan.ratio <= ratio)
      #expect(plan.parametersAfter == network.denseParameters + plan.layers.reduce(0) { $0 + $1.parameters })
      let unused = Int(ratio * Double(network.parameters)) - plan.parametersAfter
      // The next step up of any of the operators takes more than is left; of the largest here it takes 16 · 16.
      #expect(unused <= 256)
      // The closing step is not an optimum, but close to it.
      let error = error(plan)
      #expect(error <= previous * 1.01)
      previous = error
    }
    #expect(previous == 0)
  }

  @Test func `a factorisation has two sites and the error of the discarded singular values`() throws {
    let network = try network()
    let plan = try SqueezePlan(network, budget: .ratio(0.7), structure: .svd)
    for (layer, profile) in zip(plan.layers, network.layers) {
      guard let bonds = layer.bonds else { continue }
      #expect(layer.shape == .lowRank(rows: layer.rows, columns: layer.columns))
      #expect(
        abs(try #require(layer.relativeErrorBound) - #require(profile.svdRelativeError(parameters: layer.parameters)))
          < 1e-12)
      #expect(bonds.count == 1 && layer.parameters == (layer.rows + layer.columns - bonds[0]) * bonds[0])
    }
  }

  @Test(arguments: MatrixStructure.allCases)
  func `a maximum error holds whatever the structure`(structure: MatrixStructure) throws {
    let plan = try SqueezePlan(network(), budget: .maximumError(0.3), structure: structure)
    #expect(plan.layers.allSatisfy { $0.relativeErrorBound ?? 1 <= 0.3 })
    #expect(plan.layers.contains { $0.bonds != nil })
  }

  @Test func `a curve falls from dense, its hull bends one way`() throws {
    let layers = try network().layers
    for structure in MatrixStructure.allCases {
      let curve = try StructureCurve(
        members: [2], of: layers, structure: structure, weights: [1, 1, 1], minimumBond: 1, gauges: [.compact])
      #expect(curve.points[0].form == nil && curve.points[0].squaredError == 0)
      for (a, b) in zip(curve.points, curve.points.dropFirst()) {
        #expect(a.size > b.size && a.squaredError < b.squaredError)
      }
      let hull = curve.hull.map { curve.points[$0] }
      let slopes = zip(hull, hull.dropFirst()).map {
        ($1.squaredError - $0.squaredError) / Double($0.size - $1.size)
      }
      #expect(zip(slopes, slopes.dropFirst()).allSatisfy { $0 < $1 })
      // No point lies below the hull.
      for point in curve.points {
        guard let right = hull.firstIndex(where: { $0.size <= point.size }), right > 0 else { continue }
        let (a, b) = (hull[right - 1], hull[right])
        let line = a.squaredError + slopes[right - 1] * Double(a.size - point.size)
        #expect(point.squaredError >= line - 1e-9 * b.squaredError)
      }
    }
  }

  @Test func `a ratio out of reach names the smallest`() throws {
    let network = try network()
    #expect(throws: SqueezeError.self) { try SqueezePlan(network, budget: .ratio(0.3), structure: .svd) }
  }
}
