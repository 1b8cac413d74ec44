import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Matrices that are ranges of one operator.
@Suite struct LinkTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  /// `[rows, columns]`, with 12 inputs' directions of the seed `common`, and a little else.
  private static func reader(
    _ name: String, rows: Int = 64, common: UInt64 = 1, seed: UInt64, _ dtype: DType = .f32, isTransposed: Bool = false
  ) -> ModelTensor {
    let inputs = ModelTensor.random("", [12, 80], decay: 1, seed: common).values
    let outputs = ModelTensor.random("", [rows, 12], decay: 1, seed: seed).values
    let rest = ModelTensor.random("", [rows, 80], decay: 0.98, seed: seed + 1000).values
    var values = rest.map { 0.05 * $0 }
    for row in 0..<rows {
      for k in 0..<12 {
        for column in 0..<80 { values[row * 80 + column] += outputs[row * 12 + k] * inputs[k * 80 + column] }
      }
    }
    guard isTransposed else { return ModelTensor(name, dtype, [rows, 80], values) }
    return ModelTensor(name, dtype, [80, rows], (0..<80 * rows).map { values[$0 % rows * 80 + $0 / rows] })
  }

  private func model(_ dtype: DType = .f32) throws -> any DenseCheckpoint {
    let tensors = (0..<3).flatMap { layer -> [ModelTensor] in
      let common = UInt64(1 + layer / 2)
      return [
        Self.reader("layers.\(layer).k.weight", rows: 64, common: common, seed: UInt64(10 + layer), dtype),
        .random("layers.\(layer).norm.weight", [64], dtype, seed: 3),
        Self.reader("layers.\(layer).q.weight", rows: 96, common: common, seed: UInt64(20 + layer), dtype),
        Self.reader("layers.\(layer).v.weight", rows: 80, common: 50, seed: UInt64(30 + layer), dtype),
        Self.reader("layers.\(layer).o.weight", common: common, seed: UInt64(40 + layer), dtype, isTransposed: true),
        Self.reader("layers.\(layer).p.weight", common: common, seed: UInt64(50 + layer), dtype, isTransposed: true),
      ]
    }
    return try writeModel(tensors, to: temporary.path + "/\(UUID().uuidString).safetensors")
  }

  private func recipe(_ rules: [LinkRule], _ budget: Budget = .matrixRatio(0.5)) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    (recipe.links, recipe.budget) = (rules, budget)
    return recipe
  }

  private func convert(
    _ source: any DenseCheckpoint, _ recipe: ConversionRecipe, statistics: CalibrationStatistics? = nil, jobs: Int = 2
  ) throws -> MPOCheckpoint {
    let folder = try temporary.folder(UUID().uuidString)
    let options = ConversionOptions(jobs: jobs, generator: "tests")
    try Conversion.convert(source, recipe: recipe, statistics: statistics, to: folder, options: options)
    return try MPOCheckpoint(path: folder)
  }

  @Test(arguments: [DType.f32, .bf16, .f64], Gauge.allCases)
  func `linked matrices are row ranges of one operator, restore and verify`(dtype: DType, gauge: Gauge) throws {
    let source = try model(dtype)
    var recipe = recipe([LinkRule(glob: "layers.*.{q,k}.weight")])
    recipe.gauge = gauge
    let checkpoint = try convert(source, recipe)
    let contents = checkpoint.contents
    let chain = try #require(contents.operator(named: "layers.1.{k,q}.weight"))
    #expect(chain.split == .lowRank(rows: 160, columns: 80) && contents.operators.count == 12)
    let (k, q) = (contents.tensor(named: "layers.1.k.weight"), contents.tensor(named: "layers.1.q.weight"))
    #expect(k?.blocks?.blocks == [[BlockMatrix.Term(chain.name, rows: 0..<64)]])
    #expect(q?.blocks?.blocks == [[BlockMatrix.Term(chain.name, rows: 64..<160)]])
    let path = temporary.path + "/restored.safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    let restored = try openDenseCheckpoint(at: path)
    for record in contents.tensors where record.blocks != nil {
      let error = relativeDifference(try restored.values(of: record.name), try source.values(of: record.name))
      #expect(abs(error - (record.blocks?.relativeError ?? 1)) < (dtype == .bf16 ? 5e-3 : 1e-5))
      #expect(error < 0.1)
    }
    #expect(
      checkpoint.manifest.totals.parametersStored <= contents.tensors.reduce(0) { $0 + $1.info.elementCount } / 2 + 192)
    // What is shared counts in parts, which add up to what is stored once.
    let stored = contents.cores.filter { $0.role != .permutation }.reduce(0) { $0 + $1.valueCount }
    #expect(abs(contents.apportionedValueCounts.values.reduce(0, +) - Double(stored)) < 1e-6)
  }

  @Test func `matrices that write the same outputs are column ranges, and layers in a run are linked`() throws {
    let source = try model()
    let rules = [
      LinkRule(glob: "layers.*.{o,p}.weight", shares: .outputs), LinkRule(glob: "layers.*.q.weight", layers: 2),
    ]
    let contents = try convert(source, recipe(rules)).contents
    let chain = try #require(contents.operator(named: "layers.0.{o,p}.weight"))
    #expect(chain.split == .lowRank(rows: 80, columns: 128))
    #expect(
      contents.tensor(named: "layers.0.p.weight")?.blocks?.blocks
        == [[BlockMatrix.Term(chain.name, columns: 64..<128)]])
    #expect(contents.operator(named: "layers.{0,1}.q.weight") != nil)
    #expect(contents.tensor(named: "layers.2.q.weight")?.blocks?.wholeOperator == "layers.2.q.weight")
  }

  @Test func `parts of profile and conversion give what one run gives, with any number of threads`() throws {
    let source = try model()
    let recipe = recipe([LinkRule(glob: "layers.*.{q,k}.weight"), LinkRule(glob: "layers.*.v.weight", layers: 3)])
    let whole = try convert(source, recipe, jobs: 1)
    let options = ConversionOptions(jobs: 2, generator: "tests")
    let pipeline = try ConversionPipeline(source, recipe: recipe, options: options)
    let profiles = try (1...4).map { index in
      let part = SourceNetwork.Part(index: index, count: 4)
      let profile = StageFile.Profile(
        source: source.path, part: part, recipe: recipe, network: try pipeline.profile(part: part))
      let bytes = try StageFile.encode(profile)
      return (
        "part \(index)",
        try StageFile.decode(bytes, as: StageFile.Profile.self, format: StageFile.Profile.formatName, path: "")
      )
    }
    let plan = try pipeline.plan(StageFile.merge(profiles).network)
    let encoded = try StageFile.encode(StageFile.Plan(plan, recipe: recipe))
    let decoded = try StageFile.decode(
      encoded, as: StageFile.Plan.self, format: StageFile.Plan.formatName, path: "")
    let parts = try (1...3).map { index in
      let folder = try temporary.folder(UUID().uuidString)
      try pipeline.decompose(decoded.plan, to: folder, part: SourceNetwork.Part(index: index, count: 3))
      return try MPOCheckpoint(path: folder)
    }
    for part in parts { #expect(try part.damagedFiles().isEmpty) }
    try expectSameWhenMerged(parts, as: whole, in: temporary)
  }

  @Test func `experts of tensors can be linked with each other, and across tensors`() throws {
    let stacks = (0..<2).map { stack in
      let experts = (0..<3).map { Self.reader("", rows: 64, common: UInt64(1 + $0), seed: UInt64(10 * stack + $0)) }
      return ModelTensor("experts.w\(stack)", .f32, [3, 64, 80], experts.flatMap(\.values))
    }
    let source = try writeModel(stacks, to: temporary.path + "/experts.safetensors")
    let contents = try convert(source, recipe([LinkRule(glob: "experts.{w0,w1}.*")])).contents
    #expect(contents.operators.map(\.name) == (0..<3).map { "experts.{w0,w1}.\($0)" })
    #expect(
      contents.tensor(named: "experts.w1")?.blocks?.blocks
        == (0..<3).map { [BlockMatrix.Term("experts.{w0,w1}.\($0)", rows: 64..<128)] })
  }

  @Test(arguments: [LinkRule.Side.inputs, .outputs])
  func `experts of one tensor are stacked along their outputs or their inputs`(shares: LinkRule.Side) throws {
    let experts = (0..<3).map {
      Self.reader("", rows: 64, seed: UInt64(60 + $0), isTransposed: shares == .outputs)
    }
    let stack = ModelTensor(
      "experts.w", .f32, shares == .inputs ? [3, 64, 80] : [3, 80, 64], experts.flatMap(\.values))
    let source = try writeModel([stack], to: temporary.path + "/stack.safetensors")
    let checkpoint = try convert(source, recipe([LinkRule(glob: "experts.w.{*}", shares: shares)]))
    let chain = try #require(checkpoint.contents.operator(named: "experts.w.{0,1,2}"))
    #expect((chain.rows, chain.columns) == (shares == .inputs ? (192, 80) : (80, 192)))
    let expected = (0..<3).map { expert -> [BlockMatrix.Term] in
      let range = expert * 64..<(expert + 1) * 64
      return [shares == .inputs ? BlockMatrix.Term(chain.name, rows: range) : .init(chain.name, columns: range)]
    }
    #expect(checkpoint.contents.tensors[0].blocks?.blocks == expected)
    let report = try Verifier(jobs: 1).verify(checkpoint, against: source)
    #expect(report.problems.isEmpty && report.relativeErrors.allSatisfy { $0.error < 0.1 })
  }

  @Test func `in a metric the errors of linked matrices are those of their own metrics`() throws {
    let source = try model()
    let names = (0..<3).flatMap { layer in ["k", "q"].map { "layers.\(layer).\($0).weight" } }
    let tensors = names.flatMap { name -> [ModelTensor] in
      let rows = name.hasSuffix("k.weight") ? 64 : 96
      return [
        ModelTensor(name + ".column_scale", .f32, [80], (0..<80).map { 1 + Double($0 % 7) }),
        ModelTensor(name + ".row_scale", .f32, [rows], (0..<rows).map { 1 / (1 + Double($0 % 5)) }),
      ]
    }
    let path = temporary.path + "/stats.safetensors"
    let writer = try SafetensorsWriter(
      path: path, tensors: tensors.map(\.info), metadata: ["format": "mpo-statistics", "version": "2"])
    for tensor in tensors { try tensor.bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) } }
    try writer.finish()
    let statistics = try CalibrationStatistics(path: path)
    var recipe = recipe([LinkRule(glob: "layers.*.{q,k}.weight")])
    recipe.selection.include = ["*.q.weight", "*.k.weight"]
    recipe.metric = try statistics.identity(inputRidge: 0, outputRidge: 0)
    let checkpoint = try convert(source, recipe, statistics: statistics)
    #expect(checkpoint.contents.operators.count == 3)
    let path2 = temporary.path + "/restored.safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path2)
    let restored = try openDenseCheckpoint(at: path2)
    for name in names {
      let (a, b) = (try source.values(of: name), try restored.values(of: name))
      func weight(_ index: Int) -> Double { pow(1 + Double(index % 80 % 7), 2) / pow(1 + Double(index / 80 % 5), 2) }
      let error = a.indices.reduce(0) { $0 + weight($1) * pow(a[$1] - b[$1], 2) }
      let norm = a.indices.reduce(0) { $0 + weight($1) * a[$1] * a[$1] }
      let found = checkpoint.contents.tensor(named: name)?.blocks?.metricRelativeError
      #expect(abs(try #require(found) - (error / norm).squareRoot()) < 1e-5)
    }
    // One of a link without statistics.
    recipe.links = [LinkRule(glob: "layers.0.{q,v}.weight")]
    recipe.selection.include = []
    expectFailure("layers.0.v.weight", "has no statistics", "layers.0.q.weight", "leave it out of the link") {
      _ = try convert(source, recipe, statistics: statistics)
    }
  }

  @Test(
    arguments: [
      (
        [LinkRule(glob: "layers.*.{o,q}.weight")], [],
        "; linked matrices have as many inputs or as many outputs"
      ),
      ([LinkRule(glob: "layers.*.{q,k}.weight", shares: .outputs)], [], "as many outputs"),
      ([LinkRule(glob: "layers.*.{q,x}.weight")], [], "has no other matrix beside it"),
      ([LinkRule(glob: "layers.*.{x,y}.weight")], [], "matches no matrix"),
      ([LinkRule(glob: "layers.*.q.weight")], [], "has no braces"),
      ([LinkRule(glob: "layers.*.{q,k.weight")], [], "open brace"),
      (
        [LinkRule(glob: "layers.{0,1}.q.weight"), LinkRule(glob: "layers.*.{q,k}.weight")], [],
        "layers.{0,1}.q.weight' links already"
      ),
      (
        [LinkRule(glob: "layers.*.{q,k}.weight")], ["*.1.k.weight"],
        "matches 'layers.1.k.weight', which is not decomposed"
      ),
      ([LinkRule(glob: "layers.0.*.weight", layers: 2)], [], "star that stands for the number"),
      ([LinkRule(glob: "layers.0.{q,k}.weight", layers: 2)], [], "star that stands for the number"),
    ] as [([LinkRule], [String], String)])
  func `impossible links are refused by name`(rules: [LinkRule], excluded: [String], reason: String) throws {
    var recipe = recipe(rules)
    recipe.selection.exclude = excluded
    let source = try model()
    expectFailure(rules[rules.count - 1].glob, reason) { _ = try convert(source, recipe) }
  }

  @Test func `a matrix that is tied to the bonds of others is not linked, nor one that is the same as another`() throws
  {
    var recipe = recipe([LinkRule(glob: "layers.*.{q,k}.weight")])
    recipe.ties = ["layers.*.q.weight"]
    let source = try model()
    expectFailure("layers.0.q.weight", "layers.*.q.weight' ties") { _ = try convert(source, recipe) }
    let same = Self.reader("a.q.weight", seed: 1)
    let twins = try writeModel(
      [same, same.named("b.q.weight"), Self.reader("b.k.weight", seed: 2)], to: temporary.path + "/twins.safetensors")
    recipe.ties = []
    recipe.links = [LinkRule(glob: "b.{q,k}.weight")]
    expectFailure("b.q.weight", "the same tensor as 'a.q.weight'") { _ = try convert(twins, recipe) }
  }
}
