import Checkpoints
import Files
import MPOCheckpoints
import Recipes
import Squeezing
import Synchronization
import TestSupport
import Testing

@testable import Conversion

@Suite struct ConversionPipelineTests {
  private let temporary: TemporaryFolder
  private let model: any DenseCheckpoint

  init() throws {
    temporary = try TemporaryFolder()
    model = try writeModel(
      [.random("a", [64, 72], seed: 1), .random("b", [80, 64], seed: 2)], to: temporary.path + "/m.safetensors")
  }

  private let options = ConversionOptions(jobs: 2, generator: "tests")

  private func recipe(_ change: (inout ConversionRecipe) -> Void) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.6)
    change(&recipe)
    return recipe
  }

  /// Scales of the columns of `a`.
  private func statistics(_ name: String, last: Double) throws -> CalibrationStatistics {
    let scale = ModelTensor("a.column_scale", .f64, [72], Array(repeating: 1, count: 71) + [last])
    let path = temporary.path + "/" + name
    let writer = try SafetensorsWriter(
      path: path, tensors: [scale.info], metadata: ["format": "mpo-statistics", "version": "2"])
    try scale.bytes.withUnsafeBytes { try writer.write($0, to: scale.info.name) }
    try writer.finish()
    return try CalibrationStatistics(path: path)
  }

  @Test func `a conversion in one call is its stages one after the other, and its manifest has the recipe`() throws {
    let recipe = recipe { $0.structure = .auto }
    let (one, staged) = (try temporary.folder("one.mpo"), try temporary.folder("staged.mpo"))
    let manifest = try convert(model, recipe: recipe, to: one, options: options)
    let pipeline = try ConversionPipeline(model, recipe: recipe, options: options)
    let plan = try pipeline.plan(pipeline.profile())
    #expect(try pipeline.decompose(plan, to: staged) == manifest)
    #expect(manifest.conversion == recipe)
    #expect(try Conversion.recipe(of: MPOCheckpoint(path: one)) == recipe)
    #expect(manifest.totals.ratio <= 0.6)
  }

  @Test func `statistics must be those of the recipe`() throws {
    let (own, other) = (try statistics("own.safetensors", last: 2), try statistics("other.safetensors", last: 3))
    let identity = try own.identity(inputRidge: 0.5)
    let inMetric = recipe { $0.metric = identity }
    #expect(throws: StatisticsMismatch.missing(expected: identity)) {
      try ConversionPipeline(model, recipe: inMetric, options: options)
    }
    #expect(
      throws: StatisticsMismatch.differs(
        path: other.path, sha256: try FileFingerprint(ofFileAt: other.path).sha256, expected: identity)
    ) { try ConversionPipeline(model, recipe: inMetric, statistics: other, options: options) }
    #expect(throws: StatisticsMismatch.unexpected(path: own.path, sha256: identity.sha256)) {
      try ConversionPipeline(model, recipe: recipe { _ in }, statistics: own, options: options)
    }
    #expect(throws: Never.self) {
      try ConversionPipeline(model, recipe: inMetric, statistics: own, options: options)
    }
  }

  @Test(arguments: [
    (MatrixStructure.chain, ["a": [false, false, true, true], "b": [true, false, false, false]]),
    (.svd, ["a": [false, false, true, false], "b": [false, true, false, false]]),
    (.auto, ["a": [false, false, true, false], "b": [true, true, false, false]]),
  ])
  func `in a metric only what it needs is computed, and a warning counts the matrices without one`(
    structure: MatrixStructure, parts: [String: [Bool]]
  ) throws {
    let statistics = try statistics("own.safetensors", last: 2)
    let recipe = recipe {
      $0.structure = structure
      $0.metric = try? statistics.identity()
    }
    let warnings = Mutex<[String]>([])
    var options = options
    options.warning = { warning in warnings.withLock { $0.append(warning) } }
    let pipeline = try ConversionPipeline(model, recipe: recipe, statistics: statistics, options: options)
    for layer in try pipeline.profile().layers {
      let found = [
        layer.spectra != nil, layer.singularValues != nil, layer.metricSingularValues != nil, layer.basisSpectra != nil,
      ]
      #expect(found == parts[layer.name], "\(layer.name)")
    }
    #expect(warnings.withLock { $0 }.count == 1)
    #expect(warnings.withLock { $0 }.first?.hasPrefix("1 of 2 matrices have no statistics") == true)
  }

  @Test func `the ridges of the recipe decide`() throws {
    let statistics = try statistics("own.safetensors", last: 100)
    let errors = try ([nil, 1e3] as [Double?]).map { ridge in
      let recipe = recipe {
        $0.structure = .svd
        $0.metric = try? statistics.identity(inputRidge: ridge)
      }
      let manifest = try convert(
        model, recipe: recipe, statistics: statistics, to: temporary.folder("\(ridge ?? 0).mpo"), options: options)
      return try #require(manifest.contents.tensors.first { $0.name == "a" }?.blocks?.metricRelativeError)
    }
    // A ridge that drowns the statistics leaves plain SVD, which is worse in their norm.
    #expect(errors[0] < errors[1])
  }

  @Test func `members that do not go together are refused before anything is read`() throws {
    let recipe = recipe {
      $0.budget = .bond(2)
      $0.minimumBond = 3
    }
    #expect(throws: RecipeConflict.bondBelowMinimum(bond: 2, minimum: 3)) {
      try ConversionPipeline(model, recipe: recipe, options: options)
    }
    expectFailure("has no budget") {
      try convert(model, recipe: ConversionRecipe(), to: temporary.folder("x"), options: options)
    }
  }

  @Test func `only a network in half precision has a dtype of its own`() throws {
    let half = try writeModel(
      [.random("h", [64, 64], .bf16, seed: 1)], to: temporary.path + "/h.safetensors")
    #expect(try ConversionPipeline(half, recipe: ConversionRecipe(), options: options).sourceDType == .bf16)
    #expect(try ConversionPipeline(model, recipe: ConversionRecipe(), options: options).sourceDType == nil)
  }
}
