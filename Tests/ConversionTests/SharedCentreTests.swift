import Checkpoints
import Foundation
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Chains with one central core for several matrices.
@Suite struct SharedCentreTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  private func model(_ dtype: DType = .f32) throws -> any DenseCheckpoint {
    let tensors = (0..<12).flatMap { layer -> [ModelTensor] in
      [
        .random("layers.\(layer).up.weight", [96, 64], dtype, decay: 0.98, seed: UInt64(layer)),
        .random("layers.\(layer).norm.weight", [64], dtype, seed: 3),
        .random("layers.\(layer).down.weight", [64, 96], dtype, decay: 0.95, seed: UInt64(20 + layer)),
        .random("layers.\(layer).sub.up.weight", [64, 64], dtype, decay: 0.95, seed: UInt64(40 + layer)),
      ]
    }
    return try writeModel(tensors, to: temporary.path + "/\(UUID().uuidString).safetensors")
  }

  private func recipe(_ rules: [SharedCentreRule], _ budget: Budget = .matrixRatio(0.5)) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    (recipe.sharedCentres, recipe.budget) = (rules, budget)
    return recipe
  }

  private func convert(_ source: any DenseCheckpoint, _ recipe: ConversionRecipe, jobs: Int = 2) throws -> MPOCheckpoint
  {
    let folder = try temporary.folder(UUID().uuidString)
    let options = ConversionOptions(jobs: jobs, generator: "tests")
    try Conversion.convert(source, recipe: recipe, to: folder, options: options)
    return try MPOCheckpoint(path: folder)
  }

  @Test(arguments: [DType.f32, .bf16, .f64])
  func `all layers name one central core, which is counted once, restore and verify`(dtype: DType) throws {
    let source = try model(dtype)
    let checkpoint = try convert(source, recipe([SharedCentreRule(glob: "layers.*.up.weight")]))
    let contents = checkpoint.contents
    let shared = contents.operators.filter { $0.name.hasSuffix("up.weight") && !$0.name.contains("sub") }
    #expect(shared.count == 12)
    let centre = try #require(shared.first.map { $0.cores[$0.shape.centralIndex] })
    #expect(centre == "layers.{0..11}.up.weight.centre" && contents.core(named: centre)?.role == .central)
    #expect(shared.allSatisfy { $0.cores[$0.shape.centralIndex] == centre && $0.gauge == .canonical })
    #expect(contents.sharedCores.map(\.text) == [centre])
    let whole = contents.tensors.filter { $0.shape.count == 2 }.reduce(0) { $0 + $1.info.elementCount }
    let stored = checkpoint.manifest.totals.parametersStored - 12 * 64
    #expect(Double(stored) <= 0.5 * Double(whole) && Double(stored) > 0.49 * Double(whole))
    let path = temporary.path + "/restored.safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    let restored = try openDenseCheckpoint(at: path)
    for record in contents.tensors where record.blocks != nil {
      let error = relativeDifference(try restored.values(of: record.name), try source.values(of: record.name))
      #expect(abs(error - (record.blocks?.relativeError ?? 9)) < (dtype == .bf16 ? 5e-3 : 1e-5))
    }
  }

  @Test(arguments: [Gauge.compact, .spectral])
  func `a residual of low rank is added to each, is counted, and lowers the error by what is best`(gauge: Gauge) throws
  {
    let source = try model()
    let errors = try [nil, 8].map { rank in
      var recipe = recipe([SharedCentreRule(glob: "layers.*.up.weight", residualRank: rank)])
      recipe.gauge = gauge
      let checkpoint = try convert(source, recipe)
      let contents = checkpoint.contents
      let pipeline = try ConversionPipeline(
        source, recipe: recipe, options: ConversionOptions(jobs: 2, generator: "tests"))
      #expect(
        try pipeline.plan(pipeline.profile()).parametersAfter == checkpoint.manifest.totals.parametersStored)
      let stored = checkpoint.manifest.totals.parametersStored - 12 * 64
      #expect(Double(stored) <= 0.5 * Double(contents.tensors.reduce(0) { $0 + $1.info.elementCount } - 12 * 64))
      let record = try #require(contents.tensor(named: "layers.3.up.weight"))
      if rank != nil {
        #expect(record.blocks?.blocks == [["", ".residual"].map { BlockMatrix.Term("layers.3.up.weight" + $0) }])
        let residual = try #require(contents.operator(named: "layers.3.up.weight.residual"))
        #expect(residual.split == .lowRank(rows: 96, columns: 64) && residual.bonds == [8] && residual.gauge == gauge)
      }
      #expect(try Verifier(jobs: 1).verify(checkpoint, against: source).problems.isEmpty)
      let path = temporary.path + "/\(UUID().uuidString).safetensors"
      try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
      let restored = try openDenseCheckpoint(at: path).values(of: record.name)
      let error = relativeDifference(restored, try source.values(of: record.name))
      #expect(abs(error - (record.blocks?.relativeError ?? 9)) < 1e-5)
      return (restored, error)
    }
    // The best of rank 8 for what the shared core leaves.
    let values = try source.values(of: "layers.3.up.weight")
    let rest = zip(values, errors[0].0).map { $0 - $1 }
    let singular = try rest.withUnsafeBufferPointer { try Matrix.singularValues(of: $0, rows: 96, columns: 64) }
    let best = (singular.dropFirst(8).reduce(0) { $0 + $1 * $1 } / values.reduce(0) { $0 + $1 * $1 }).squareRoot()
    #expect(abs(errors[1].1 - best) < 1e-4 && best < 0.9 * errors[0].1)
  }

  @Test func `several central cores divide the layers into runs, in the order of their numbers`() throws {
    let contents = try convert(model(), recipe([SharedCentreRule(glob: "layers.*.up.weight", centres: 3)])).contents
    let centres = (0..<12).compactMap { layer in
      contents.operator(named: "layers.\(layer).up.weight").map { $0.cores[$0.shape.centralIndex] }
    }
    let expected = ["{0,1,2,3}", "{4,5,6,7}", "{8,9,10,11}"].flatMap {
      Array(repeating: "layers.\($0).up.weight.centre", count: 4)
    }
    #expect(centres == expected)
  }

  @Test func `parts of profile and conversion give what one run gives, with any number of threads`() throws {
    let source = try model()
    var recipe = recipe([SharedCentreRule(glob: "layers.*.up.weight", centres: 2, residualRank: 3)])
    recipe.links = [LinkRule(glob: "layers.*.{down,sub.up}.weight", shares: .outputs)]
    let whole = try convert(source, recipe, jobs: 1)
    let pipeline = try ConversionPipeline(
      source, recipe: recipe, options: ConversionOptions(jobs: 2, generator: "tests"))
    try expectSameInParts(pipeline, profileParts: 3, as: whole, in: temporary)
  }

  @Test(arguments: [
    (SharedCentreRule(glob: "layers.1.up.weight"), "matches 1 matrix; a shared central core needs at least two"),
    (SharedCentreRule(glob: "layers.*.up.weight", centres: 7), "matches 12 matrices"),
    (SharedCentreRule(glob: "layers.*.up.weight", residualRank: 64), "a residual of rank 64 would be as large"),
    (SharedCentreRule(glob: "layers.*.{up,down}.weight"), "one shape and type"),
    (SharedCentreRule(glob: "layers.*.gate.weight"), "matches no matrix"),
    (SharedCentreRule(glob: "layers.*.down.weight"), "which 'layers.*.down.weight' ties"),
    (SharedCentreRule(glob: "layers.?.sub.up.weight"), "matches already"),
  ])
  func `impossible shared centres are refused by name`(rule: SharedCentreRule, reason: String) throws {
    var recipe = recipe([rule])
    recipe.ties = ["layers.*.down.weight"]
    recipe.links = [LinkRule(glob: "layers.*.sub.up.weight", layers: 2)]
    let source = try model()
    expectFailure(rule.glob, reason) { _ = try convert(source, recipe) }
  }

  @Test func `a ratio below what the fixed cores take is out of reach`() throws {
    let source = try model()
    expectFailure("can't be reached") {
      _ = try convert(source, recipe([SharedCentreRule(glob: "layers.*.up.weight")], .matrixRatio(0.05)))
    }
  }
}
