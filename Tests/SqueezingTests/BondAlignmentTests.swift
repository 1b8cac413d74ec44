import Foundation
import Squeezing
import TensorNetworks
import Testing

@Suite struct BondAlignmentTests {
  /// A matrix of which only the singular values are known.
  private func layer(_ name: String, _ rows: Int, _ columns: Int, value: (Int) -> Double) -> LayerProfile {
    let values = (0..<min(rows, columns)).map(value)
    return LayerProfile(
      name: name, split: MatrixSplit(rows: rows, columns: columns, shape: .lowRank(rows: rows, columns: columns)),
      norm: values.reduce(0) { $0 + $1 * $1 }.squareRoot(), spectra: nil, singularValues: values)
  }

  private func network(_ layers: [LayerProfile]) -> NetworkProfile {
    NetworkProfile(parameters: layers.reduce(0) { $0 + $1.denseParameterCount }, tiedParameters: 0, layers: layers)
  }

  /// What the refusal of a ratio that can't be reached says that can; nil where it is not refused.
  private func smallestRatio(alignment: BondAlignment) -> Double? {
    do {
      _ = try SqueezePlan(mixed, budget: .ratio(1e-6), alignment: alignment, structure: .svd)
    } catch SqueezeError.ratioOutOfReach(_, let smallest) {
      return smallest
    } catch {}
    return nil
  }

  @Test(arguments: MatrixStructure.allCases)
  func `aligned bonds are multiples or full, and keep the budget`(structure: MatrixStructure) throws {
    let network = try NetworkProfile.small(seed: 100)
    for ratio in [0.9, 0.7, 0.5] {
      let plan = try SqueezePlan(network, budget: .ratio(ratio), alignment: .multiples(of: 4), structure: structure)
      #expect(plan.ratio <= ratio)
      #expect(plan.layers.contains { $0.bonds != nil })
      for layer in plan.layers {
        for (bond, full) in zip(layer.bonds ?? [], layer.shape.fullBonds) where bond >= 4 {
          #expect(bond % 4 == 0 || bond == full)
        }
      }
    }
  }

  /// Two matrices whose full bond is 256 and 300, one whose is 40, all of slowly falling singular values.
  private var mixed: NetworkProfile {
    network(
      [("a", 256, 320), ("b", 400, 300), ("c", 40, 90)].map { name, rows, columns in
        layer(name, rows, columns) { pow(0.99, Double($0)) }
      })
  }

  @Test func `by default low rank is aligned where the full bond is at least 256`() throws {
    for ratio in [0.8, 0.5, 0.3] {
      let plan = try SqueezePlan(mixed, budget: .ratio(ratio), structure: .svd)
      #expect(plan.ratio <= ratio && plan.ratio > ratio - 0.03)
      let large = plan.layers.filter { $0.name != "c" }.compactMap { $0.bonds?[0] }
      #expect(large.count == 2 && large.allSatisfy { $0.isMultiple(of: 8) }, "\(large)")
    }
    let ratios = stride(from: 0.4, through: 0.8, by: 0.02)
    let small = try ratios.map { try SqueezePlan(mixed, budget: .ratio($0), structure: .svd).layers[2].bonds?[0] }
    #expect(small.contains { $0.map { !$0.isMultiple(of: 8) } ?? false }, "\(small)")
    let free = try SqueezePlan(mixed, budget: .ratio(0.5), alignment: .multiples(of: 1), structure: .svd)
    #expect(free.layers.contains { $0.bonds.map { !$0[0].isMultiple(of: 8) } ?? false })
  }

  @Test func `alignment puts no budget out of reach, and no matrix above its maximum error`() throws {
    let least = smallestRatio(alignment: .multiples(of: 1))
    #expect(least != nil && smallestRatio(alignment: .auto) == least)
    #expect(smallestRatio(alignment: .multiples(of: 16)) == least)
    let held = try SqueezePlan(mixed, budget: .ratio(0.5), minimumBond: 21, structure: .svd)
    #expect(held.layers.allSatisfy { $0.bonds.map { $0[0] >= 21 } ?? true })
    for error in [0.5, 0.1, 0.02] {
      let plan = try SqueezePlan(mixed, budget: .maximumError(error), structure: .svd)
      #expect(plan.layers.allSatisfy { ($0.relativeErrorBound ?? 1) <= error })
      #expect(plan.layers.prefix(2).allSatisfy { $0.bonds?[0].isMultiple(of: 8) ?? true })
    }
  }

  @Test func `a lossless bond need not be a multiple`() throws {
    let plan = try SqueezePlan(network([layer("a", 256, 320) { $0 < 37 ? 1 : 0 }]), budget: .lossless, structure: .svd)
    #expect(plan.layers[0].bonds == [37])
  }
}
