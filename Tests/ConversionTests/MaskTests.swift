import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Matrices of which a mask keeps some elements.
@Suite struct MaskTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  /// A mask whose rows and columns keep very different numbers of elements.
  private func mask(_ rows: Int, _ columns: Int, seed: UInt64) -> [Double] {
    var generator = SeededGenerator(seed: seed)
    return (0..<rows * columns).map { index in
      let chance =
        (0.1 + 0.9 * Double(index / columns) / Double(rows)) * (0.1 + 0.9 * Double(index % columns) / Double(columns))
      return Double.random(in: 0...1, using: &generator) < chance ? 1 : 0
    }
  }

  private static let names = ["a.weight", "b.weight", "c.weight"]

  private func model(_ dtype: DType = .f32, isSparse: Bool = true) throws -> any DenseCheckpoint {
    let tensors = Self.names.enumerated().map { index, name in
      let full = ModelTensor.random(name, [80, 64], dtype, decay: 0.99, seed: UInt64(index))
      guard isSparse else { return full }
      return ModelTensor(name, dtype, [80, 64], zip(full.values, mask(80, 64, seed: UInt64(index))).map { $0 * $1 })
    }
    return try writeModel(tensors, to: temporary.path + "/\(UUID().uuidString).safetensors")
  }

  private func maskFile(_ tensors: [ModelTensor]) throws -> MaskFile {
    let path = temporary.path + "/\(UUID().uuidString).safetensors"
    _ = try writeModel(tensors, to: path)
    return try MaskFile(path: path)
  }

  private func maskFile(_ dtype: DType = .f16) throws -> MaskFile {
    try maskFile(
      Self.names.enumerated().map { ModelTensor($1, dtype, [80, 64], mask(80, 64, seed: UInt64($0))) })
  }

  private func recipe(_ mask: MaskRule?, _ structure: MatrixStructure = .svd, _ budget: Budget = .matrixRatio(0.4))
    -> ConversionRecipe
  {
    var recipe = ConversionRecipe()
    (recipe.mask, recipe.structure, recipe.budget) = (mask, structure, budget)
    return recipe
  }

  private func convert(
    _ source: any DenseCheckpoint, _ recipe: ConversionRecipe, _ mask: MaskFile? = nil, jobs: Int = 2
  )
    throws -> MPOCheckpoint
  {
    let folder = try temporary.folder(UUID().uuidString)
    try Conversion.convert(
      source, recipe: recipe, mask: mask, to: folder, options: ConversionOptions(jobs: jobs, generator: "tests"))
    return try MPOCheckpoint(path: folder)
  }

  /// For each matrix `√(Σ F ⊙ (W − Ŵ)² / Σ F ⊙ W²)` with the weights F of `sides`, of `elements` and of nothing.
  private func errors(
    _ checkpoint: MPOCheckpoint, _ source: any DenseCheckpoint
  ) throws -> [(sides: Double, elements: Double, plain: Double)] {
    let path = temporary.path + "/\(UUID().uuidString).safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    let restored = try openDenseCheckpoint(at: path)
    return try Self.names.map { name in
      let (found, expected) = (try restored.values(of: name), try source.values(of: name))
      let kept = expected.map { $0 == 0 ? 0.0 : 1 }
      let rows = (0..<80).map { row in max(1, kept[row * 64..<(row + 1) * 64].reduce(0, +)) }
      let columns = (0..<64).map { column in max(1, (0..<80).reduce(0) { $0 + kept[$1 * 64 + column] }) }
      func error(_ weight: (Int) -> Double) -> Double {
        let (error, norm) = expected.indices.reduce((0.0, 0.0)) { sum, index in
          let difference = found[index] - expected[index]
          return (
            sum.0 + weight(index) * difference * difference, sum.1 + weight(index) * expected[index] * expected[index]
          )
        }
        return (error / norm).squareRoot()
      }
      return (error { rows[$0 / 64] * columns[$0 % 64] }, error { kept[$0] }, error { _ in 1 })
    }
  }

  @Test(arguments: [DType.f32, .f64])
  func `what a mask weights has less error than without, and the errors recorded are those of what is stored`(
    dtype: DType
  ) throws {
    let source = try model(dtype)
    let plain = try errors(convert(source, recipe(nil)), source)
    for weights in MaskRule.Weights.allCases {
      let checkpoint = try convert(source, recipe(MaskRule(source: .zeros, weights: weights)))
      let found = try errors(checkpoint, source)
      for (index, name) in Self.names.enumerated() {
        let blocks = try #require(checkpoint.contents.tensor(named: name)?.blocks)
        let metric = weights == .sides ? found[index].sides : found[index].elements
        #expect(abs(try #require(blocks.metricRelativeError) - metric) < 1e-5)
        #expect(abs(try #require(blocks.relativeError) - found[index].plain) < 1e-5)
      }
      func total(_ part: ((sides: Double, elements: Double, plain: Double)) -> Double) -> (Double, Double) {
        (found.reduce(0) { $0 + part($1) * part($1) }, plain.reduce(0) { $0 + part($1) * part($1) })
      }
      let (own, without) = weights == .sides ? total(\.sides) : total(\.elements)
      #expect(own < (weights == .sides ? 0.98 : 0.7) * without, "\(weights)")
    }
  }

  @Test func `a file decides what is decomposed, by its SHA-256, and errors are those to the source`() throws {
    let source = try model(isSparse: false)
    let masks = [DType.f16, .f32].map { try? maskFile($0) }
    let file = try #require(masks[0])
    let rule = MaskRule(source: .file(sha256: try file.sha256))
    let checkpoint = try convert(source, recipe(rule), file)
    // The same as the sparse model with the mask of its zeros, byte for byte.
    let sparse = try convert(model(), recipe(MaskRule(source: .zeros)))
    #expect(
      FileManager.default.contents(atPath: checkpoint.path + "/tensors.safetensors")
        == FileManager.default.contents(atPath: sparse.path + "/tensors.safetensors"))
    let report = try Verifier(jobs: 1).verify(checkpoint, against: source)
    #expect(report.problems.isEmpty && report.relativeErrors.count == 3)
    for name in Self.names {
      let blocks = checkpoint.contents.tensor(named: name)?.blocks
      #expect(try #require(blocks?.relativeError) > 0.5 && blocks?.metricRelativeError != blocks?.relativeError)
      let norm = try source.values(of: name).reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(abs(try #require(blocks?.norm) - norm) < 1e-5 * norm)
      let other = sparse.contents.tensor(named: name)?.blocks
      #expect(blocks?.metricRelativeError == other?.metricRelativeError)
    }
    for (recipe, mask, reason) in [
      (recipe(rule), nil, "but none was given"), (recipe(rule), masks[1], "but \(masks[1]?.path ?? "")"),
      (recipe(nil), file, "has no mask file"), (recipe(MaskRule(source: .zeros)), file, "has no mask file"),
    ] as [(ConversionRecipe, MaskFile?, String)] {
      expectFailure(reason) { _ = try convert(source, recipe, mask) }
    }
  }

  @Test func `with statistics a file decides what is decomposed, and they weight errors`() throws {
    let (source, file) = (try model(isSparse: false), try maskFile())
    let scale = ModelTensor("a.weight.row_scale", .f32, [80], (0..<80).map { 1 + Double($0 % 3) })
    let path = temporary.path + "/stats.safetensors"
    let writer = try SafetensorsWriter(
      path: path, tensors: [scale.info], metadata: ["format": "mpo-statistics", "version": "2"])
    try scale.bytes.withUnsafeBytes { try writer.write($0, to: scale.info.name) }
    try writer.finish()
    let statistics = try CalibrationStatistics(path: path)
    var recipe = recipe(MaskRule(source: .file(sha256: try file.sha256)))
    recipe.metric = try statistics.identity()
    func tensors(_ source: any DenseCheckpoint, _ recipe: ConversionRecipe, _ mask: MaskFile?) throws -> Data? {
      let folder = try temporary.folder(UUID().uuidString)
      try Conversion.convert(
        source, recipe: recipe, statistics: statistics, mask: mask, to: folder,
        options: ConversionOptions(jobs: 2, generator: "tests"))
      return FileManager.default.contents(atPath: folder + "/tensors.safetensors")
    }
    let masked = try tensors(source, recipe, file)
    recipe.mask = nil
    #expect(try masked == tensors(model(), recipe, nil))
    #expect(try masked != tensors(source, recipe, nil))
  }

  @Test(arguments: [MatrixStructure.auto, .chain], MaskRule.Weights.allCases)
  func `parts and stages give the same bytes, with any number of threads`(
    structure: MatrixStructure, weights: MaskRule.Weights
  ) throws {
    let source = try model(isSparse: false)
    let file = try maskFile(.bf16)
    var recipe = recipe(MaskRule(source: .file(sha256: try file.sha256), weights: weights), structure)
    if structure == .auto, weights == .sides { recipe.links = [LinkRule(glob: "{a,b}.weight")] }
    let whole = try convert(source, recipe, file, jobs: 1)
    let pipeline = try ConversionPipeline(
      source, recipe: recipe, mask: file, options: ConversionOptions(jobs: 2, generator: "tests"))
    try expectSameInParts(pipeline, profileParts: 2, as: whole, in: temporary)
  }

  @Test func `experts have their parts of the mask of their tensor`() throws {
    let stack = ModelTensor.random("experts.w", [3, 64, 80], seed: 1)
    let kept = (0..<3).flatMap { mask(64, 80, seed: UInt64($0)) }
    let file = try maskFile([ModelTensor("experts.w", .f32, [3, 64, 80], kept)])
    let source = try writeModel([stack], to: temporary.path + "/stack.safetensors")
    let sparse = try writeModel(
      [ModelTensor("experts.w", .f32, [3, 64, 80], zip(stack.values, kept).map { $0 * $1 })],
      to: temporary.path + "/sparse.safetensors")
    let a = try convert(source, recipe(MaskRule(source: .file(sha256: try file.sha256))), file)
    let b = try convert(sparse, recipe(MaskRule(source: .zeros)))
    #expect(
      FileManager.default.contents(atPath: a.path + "/tensors.safetensors")
        == FileManager.default.contents(atPath: b.path + "/tensors.safetensors"))
  }

  @Test func `an expert that stays dense beside others in cores is stored unchanged`() throws {
    // Of the first expert hardly anything is kept, so that it gets few numbers; of the second one all but one element.
    let stack = ModelTensor(
      "experts.w", .f32, [2, 64, 80], ModelTensor.random("", [128, 80], decay: 1, seed: 9).values)
    let kept = (0..<2 * 64 * 80).map { ($0 > 64 * 80 || $0 % 80 == 0) && $0 != 64 * 80 ? 1.0 : 0 }
    let source = try writeModel([stack], to: temporary.path + "/stack.safetensors")
    let file = try maskFile([ModelTensor("experts.w", .f32, [2, 64, 80], kept)])
    let rule = MaskRule(source: .file(sha256: try file.sha256))
    let checkpoint = try convert(source, recipe(rule, .svd, .matrixRatio(0.55)), file)
    #expect(try #require(checkpoint.contents.operator(named: "experts.w.0")).bonds[0] < 64)
    #expect(checkpoint.contents.operator(named: "experts.w.1")?.bonds == [64])
    #expect(try Verifier(jobs: 1).verify(checkpoint, against: source).problems.isEmpty)
    try Restorer(jobs: 1).restoreFile(checkpoint, to: temporary.path + "/r.safetensors")
    let restored = try openDenseCheckpoint(at: temporary.path + "/r.safetensors").values(of: "experts.w")
    let expected = try source.values(of: "experts.w")
    #expect(restored[5120...] == expected[5120...])
  }

  @Test func `impossible masks are refused by name`() throws {
    let source = try model(isSparse: false)
    expectFailure("has no zeros in the matrices", "changes nothing") {
      _ = try convert(source, recipe(MaskRule(source: .zeros)))
    }
    let ones = [Double](repeating: 1, count: 80 * 64)
    let cases: [([ModelTensor], String, String)] = [
      ([ModelTensor("a.weight", .f32, [64, 80], ones)], "'a.weight'", "mask of [64, 80]; the tensor of"),
      ([ModelTensor("d.weight", .f32, [80, 64], ones)], "'d.weight'", "is not a tensor of"),
      ([ModelTensor("a.weight", .f32, [80, 64], ones)], "keeps every element", "leave it out"),
      ([ModelTensor("a.weight", .f32, [80, 64], ones.map { $0 / 2 })], "'a.weight'", "neither 0 nor 1, at 0"),
      ([ModelTensor("a.weight", .f32, [80, 64], [.nan] + ones.dropFirst())], "'a.weight'", "neither 0 nor 1"),
      ([ModelTensor("a.weight", .i64, [80, 64], ones)], "'a.weight'", "a mask is BOOL, U8 or floating-point"),
    ]
    for (tensors, name, reason) in cases {
      expectFailure(name, reason) {
        let file = try maskFile(tensors)
        _ = try convert(source, recipe(MaskRule(source: .file(sha256: try file.sha256))), file)
      }
    }
  }

  @Test func `the elements that a mask keeps are counted`() throws {
    // The first 10 rows and the last 4 columns are masked: rank 60 of 64.
    let values = (0..<80 * 64).map { $0 / 64 < 10 || $0 % 64 >= 60 ? 0.0 : 1 }
    let file = try maskFile([ModelTensor("b.weight", .f64, [80, 64], values)])
    let (found, warning) = try SourceNetwork.masked(model(isSparse: false), by: file, jobs: 2)
    #expect(warning?.contains("2 of 3 matrices have no mask ('a.weight', …)") == true)
    #expect(found.map(\.kept) == [80 * 64, 70 * 60, 80 * 64] && found.map(\.rank) == [64, 60, 64])
    #expect(found[1].emptyRows == 10 && found[1].emptyColumns == 4)
    #expect(found[1].energyRank < 60 && found[0].energyRank == found[0].sourceEnergyRank)
    let sparse = try SourceNetwork.masked(model(), by: nil, jobs: 1).matrices
    #expect(sparse.allSatisfy { $0.kept < 80 * 64 && $0.sourceEnergyRank == nil })
  }
}
