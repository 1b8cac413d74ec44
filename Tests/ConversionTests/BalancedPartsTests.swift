import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TestSupport
import Testing

@testable import Conversion

@Suite struct BalancedPartsTests {
  @Test func `every item is in one part, and no part has much more than its share`() {
    var generator = SeededGenerator(seed: 3)
    for count in [1, 2, 3, 7, 64] {
      let costs = (0..<200).map { _ in Double.random(in: 1...20, using: &generator) }
      let balanced = BalancedParts(of: costs, count: count)
      #expect(balanced.parts.count == costs.count && balanced.parts.allSatisfy { (0..<count).contains($0) })
      for part in 0..<count {
        let own = zip(balanced.parts, costs).reduce(0) { $0 + ($1.0 == part ? $1.1 : 0) }
        #expect(abs(own - balanced.loads[part]) < 1e-9)
      }
      let share = costs.reduce(0, +) / Double(count)
      #expect((balanced.loads.max() ?? 0) <= 4.0 / 3 * max(share, 20), "\(count)")
    }
  }

  @Test func `parts are equal by operations and not by the number of matrices`() throws {
    let temporary = try TemporaryFolder()
    // As much work in the large one as in the many together: by number one of two parts would have three times the other's.
    let tensors =
      [ModelTensor.random("a", [512, 512], seed: 1)]
      + (0..<8).map { ModelTensor.random("b\($0)", [256, 256], seed: UInt64($0)) }
    let source = try writeModel(tensors, to: temporary.path + "/m.safetensors")
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.5)
    let pipeline = try ConversionPipeline(
      source, recipe: recipe, options: ConversionOptions(jobs: 2, generator: "tests"))
    let network = try pipeline.network
    let division = try network.division(into: 2, for: recipe) { _ in false }
    #expect(division.joined().sorted() == Array(network.matrices.indices))
    #expect(division.map(\.count).sorted() == [1, 8])
    let plan = try pipeline.plan(pipeline.profile())
    let parts = try pipeline.schedule(parts: 2, plan, jobs: 1)
    for stage in [parts.map(\.profile), parts.map(\.conversion)] {
      let operations = stage.map(\.operations)
      #expect((operations.min() ?? 0) > 0.8 * (operations.max() ?? 0), "\(operations)")
      #expect(stage.map(\.matrices).reduce(0, +) == 9)
    }
    // With two threads a single matrix takes as long.
    let twice = try pipeline.schedule(parts: 2, plan, jobs: 2)
    #expect(zip(twice, parts).contains { $0.profile.seconds(rate: 1) == $1.profile.seconds(rate: 1) })
    #expect(zip(twice, parts).contains { $0.profile.seconds(rate: 1) < 0.6 * $1.profile.seconds(rate: 1) })
    #expect(try pipeline.schedule(parts: 2, plan, jobs: 1, expectsStatistics: true)[0].memory > parts[0].memory)
  }
}
