import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TestSupport
import Testing

@testable import Conversion

/// The experts of a mixture, stacked as one tensor `[E, I, J]`, are matrices too.
@Suite struct StackedExpertsTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  /// A small Mixtral, its experts unlike each other.
  private func model(
    _ dtype: DType = .f32, config: String = #"{"architectures": ["MixtralForCausalLM"], "num_local_experts": 4}"#,
    changing change: (inout [Double]) -> Void = { _ in }
  ) throws -> any DenseCheckpoint {
    var tensors = [
      ModelTensor.random("embed.weight", [128, 64], dtype, seed: 1), .random("norm.weight", [64], dtype, seed: 2),
    ]
    for layer in 0..<2 {
      var values: [Double] = []
      for expert in 0..<4 {
        values +=
          ModelTensor.random(
            "", [96, 64], decay: 0.9 + 0.03 * Double(expert), seed: UInt64(10 * layer + expert)
          ).values
      }
      if layer == 0 { change(&values) }
      tensors.append(ModelTensor("\(layer).w1", dtype, [4, 96, 64], values))
    }
    let folder = try temporary.folder(UUID().uuidString)
    _ = try writeModel(tensors, to: folder + "/model.safetensors")
    try Data(config.utf8).write(to: URL(filePath: folder + "/config.json"))
    return try openDenseCheckpoint(at: folder)
  }

  private func recipe(_ budget: Budget, _ structure: MatrixStructure = .auto) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.structure) = (budget, structure)
    return recipe
  }

  private func convert(
    _ source: any DenseCheckpoint, _ recipe: ConversionRecipe, statistics: CalibrationStatistics? = nil
  ) throws -> MPOCheckpoint {
    let folder = try temporary.folder(UUID().uuidString)
    let options = ConversionOptions(jobs: 2, generator: "tests")
    try Conversion.convert(source, recipe: recipe, statistics: statistics, to: folder, options: options)
    return try MPOCheckpoint(path: folder)
  }

  private func restored(_ checkpoint: MPOCheckpoint) throws -> any DenseCheckpoint {
    let path = temporary.path + "/" + UUID().uuidString + ".safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    return try openDenseCheckpoint(at: path)
  }

  @Test(arguments: [DType.f32, .bf16], [MatrixStructure.auto, .chain, .svd])
  func `each expert is an operator with bonds of its own`(dtype: DType, structure: MatrixStructure) throws {
    let source = try model(dtype)
    let converted = try convert(source, recipe(.ratio(0.5), structure))
    let contents = converted.contents
    #expect(converted.manifest.totals.ratio <= 0.5 && converted.manifest.totals.ratio > 0.49)
    #expect(
      contents.operators.map(\.name)
        == ["embed.weight"] + (0..<2).flatMap { layer in (0..<4).map { "\(layer).w1.\($0)" } })
    #expect(Set(contents.operators.suffix(8).map(\.bonds)).count > 1)
    #expect(try Verifier(jobs: 2).verify(converted, against: source).problems.isEmpty)
    let result = try restored(converted)
    for name in ["0.w1", "1.w1"] {
      let error = relativeDifference(try result.values(of: name), try source.values(of: name))
      let recorded = try #require(contents.tensor(named: name)?.blocks?.relativeError)
      #expect(error < 0.4 && abs(error - recorded) < (dtype == .f32 ? 1e-6 : 2e-3), "\(error), \(recorded)")
    }
    let selected = TensorSelection().parameters(in: contents, ModelConfiguration(folder: converted.path))
    #expect(selected.before == 128 * 64 + 2 * 4 * 96 * 64)
    #expect(selected.stored == converted.manifest.totals.parametersStored - 64)
  }

  @Test(arguments: [DType.f32, .bf16])
  func `a lossless conversion restores every expert bit for bit`(dtype: DType) throws {
    let source = try model(dtype)
    let converted = try convert(source, recipe(.lossless))
    #expect(converted.contents.operators.count == 9 && converted.manifest.totals.ratio == 1)
    let result = try restored(converted)
    for tensor in source.tensors { #expect(try result.bytes(of: tensor.name) == source.bytes(of: tensor.name)) }
  }

  @Test func `an expert that stays dense beside cores keeps its numbers and their count`() throws {
    // Expert 3 is noise; the others have rank 2.
    let source = try model { values in
      var generator = SeededGenerator(seed: 5)
      for index in values.indices {
        let (expert, row, column) = (index / 6144, index / 64 % 96, index % 64)
        values[index] =
          expert == 3
          ? Double.random(in: -1...1, using: &generator)
          : cos(Double(row * (expert + 1))) * sin(Double(column)) + 0.1 * cos(Double(column * row % 2))
      }
    }
    var recipe = recipe(.maximumError(0.02))
    recipe.selection.include = ["0.w1"]
    recipe.central = .int8
    let converted = try convert(source, recipe)
    let contents = converted.contents
    #expect(contents.operators.count == 4)
    let last = try #require(contents.operator(named: "0.w1.3"))
    #expect(contents.valueCount(of: last) == 96 * 64 && last.gauge == .compact)
    for expert in 0..<3 {
      #expect(try contents.valueCount(of: #require(contents.operator(named: "0.w1.\(expert)"))) < 3000)
    }
    let (own, others) = (try restored(converted).values(of: "0.w1"), try source.values(of: "0.w1"))
    #expect(own.suffix(6144) == others.suffix(6144) && own != others)
    #expect(try Verifier(jobs: 2).verify(converted, against: source).problems.isEmpty)
  }

  @Test func `parts and merge give what one conversion gives`() throws {
    let source = try model()
    let recipe = recipe(.ratio(0.5))
    let whole = try convert(source, recipe)
    let network = try SourceNetwork(source, selection: recipe.selection)
    let profiles = try (1...2).map { index in
      StageFile.Profile(
        source: "m", part: SourceNetwork.Part(index: index, count: 2), recipe: recipe,
        network: try network.profile(for: recipe, part: SourceNetwork.Part(index: index, count: 2), jobs: 2).profile)
    }
    // What is stacked in one tensor is in one part.
    for profile in profiles {
      #expect([0, 4].contains(profile.network.layers.count { $0.name.hasPrefix("0.w1.") }))
    }
    let merged = try StageFile.merge(profiles.map { ("p", $0) })
    let plan = try recipe.plan(merged.network, path: "p")
    let parts = try (1...3).map { index in
      var converter = Converter(recipe: recipe, jobs: 2, generator: "tests")
      converter.part = SourceNetwork.Part(index: index, count: 3)
      let folder = try temporary.folder("part\(index)")
      try converter.convert(source, plan: plan, to: folder)
      return try MPOCheckpoint(path: folder)
    }
    let folder = try temporary.folder("merged")
    try Merger(jobs: 2).merge(parts, to: folder)
    for name in ["manifest.json", "tensors.safetensors", "config.json"] {
      #expect(
        FileManager.default.contentsEqual(atPath: folder + "/" + name, andPath: whole.path + "/" + name), "\(name)")
    }
  }

  @Test func `a stack with an expert that is not finite stays dense, with one warning`() throws {
    let source = try model { $0[6144 * 2 + 5] = .nan }
    let (profile, warnings) = try SourceNetwork(source, selection: TensorSelection())
      .profile(for: recipe(.ratio(0.7)), jobs: 2)
    #expect(warnings.count == 1 && warnings[0].contains("'0.w1'"), "\(warnings)")
    #expect(profile.layers.count == 5 && !profile.layers.contains { $0.name.hasPrefix("0.w1") })
    #expect(try convert(source, recipe(.ratio(0.7))).contents.tensor(named: "0.w1")?.isDense == true)
  }

  @Test(arguments: [
    (#"{"num_local_experts": 4}"#, "w1", nil, true), (#"{"num_experts": 4}"#, "w1", nil, true),
    (#"{"text_config": {"n_routed_experts": 4}}"#, "w1", nil, true), (#"{"num_experts": 8}"#, "w1", nil, false),
    ("{}", "w1", nil, false), ("[", "w1", nil, false), ("{}", "mlp.experts.w1", nil, true),
    ("{}", "shared_experts", nil, false), ("{}", "w1", true, true), (#"{"num_experts": 4}"#, "w1", false, false),
  ])
  func `a name, the configuration or the recipe says what experts are`(
    config: String, name: String, experts: Bool?, isStack: Bool
  ) throws {
    let folder = try temporary.folder("m")
    _ = try writeModel(
      [.random(name, [4, 96, 64], seed: 1), .random("x", [64, 64], seed: 2)], to: folder + "/model.safetensors")
    try Data(config.utf8).write(to: URL(filePath: folder + "/config.json"))
    var selection = TensorSelection()
    selection.experts = experts
    let matrices = try selection.matrices(of: openDenseCheckpoint(at: folder))
    #expect(matrices.map(\.name) == (isStack ? (0..<4).map { "\(name).\($0)" } : []) + ["x"])
  }

  @Test func `the error in a metric is that of all experts together`() throws {
    let source = try model()
    let scales = (0..<4).map { expert in
      ModelTensor("0.w1.\(expert).column_scale", .f32, [64], (0..<64).map { Double(1 + ($0 + expert) % 5) })
    }
    let path = temporary.path + "/stats.safetensors"
    let writer = try SafetensorsWriter(
      path: path, tensors: scales.map(\.info), metadata: ["format": "mpo-statistics", "version": "2"])
    for scale in scales {
      let bytes = try scale.bytes
      try bytes.withUnsafeBytes { try writer.write($0, to: scale.info.name) }
    }
    try writer.finish()
    let statistics = try CalibrationStatistics(path: path)
    var recipe = recipe(.ratio(0.6))
    recipe.metric = try statistics.identity(inputRidge: nil, outputRidge: nil)
    let converted = try convert(source, recipe, statistics: statistics)
    func weighted(_ values: [Double]) -> [Double] {
      values.enumerated().map { $1 * Double(1 + ($0 % 64 + $0 / 6144) % 5) }
    }
    let expected = relativeDifference(
      weighted(try restored(converted).values(of: "0.w1")), weighted(try source.values(of: "0.w1")))
    let found = try #require(converted.contents.tensor(named: "0.w1")?.blocks?.metricRelativeError)
    #expect(expected > 0.01 && abs(found - expected) < 1e-5, "\(found), \(expected)")
  }
}
