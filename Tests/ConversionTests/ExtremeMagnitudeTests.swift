import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Matrices whose squares vanish or overflow beside ordinary ones, and matrices without full rank.
@Suite struct ExtremeMagnitudeTests {
  private let temporary: TemporaryFolder
  private let source: any DenseCheckpoint

  init() throws {
    temporary = try TemporaryFolder()
    func random(_ name: String, _ dtype: DType, times scale: Double, seed: UInt64) -> ModelTensor {
      let tensor = ModelTensor.random(name, [48, 64], dtype, decay: 0.9, seed: seed)
      return ModelTensor(name, dtype, [48, 64], tensor.values.map { $0 * scale })
    }
    let row = (0..<64).map { Double($0 % 7) - 3 }
    source = try writeModel(
      [
        random("ordinary", .f32, times: 1, seed: 1), random("tiny.f64", .f64, times: 1e-200, seed: 2),
        random("huge.f64", .f64, times: 1e200, seed: 3), random("tiny.f32", .f32, times: 1e-36, seed: 4),
        random("huge.f32", .f32, times: 1e32, seed: 5), random("too huge.f32", .f32, times: 3e38, seed: 6),
        ModelTensor("zero", .f32, [48, 64], Array(repeating: 0, count: 48 * 64)),
        ModelTensor("constant", .f32, [48, 64], Array(repeating: 0.25, count: 48 * 64)),
        ModelTensor("duplicate rows", .f32, [48, 64], (0..<48).flatMap { _ in row }),
      ], to: temporary.path + "/model.safetensors")
  }

  /// `‖a − b‖ / ‖b‖`, whatever the magnitude.
  private func trueError(_ found: [Double], _ expected: [Double]) -> Double {
    let largest = expected.map(\.magnitude).max() ?? 0
    if largest == 0 { return found.allSatisfy { $0 == 0 } ? 0 : .infinity }
    return relativeDifference(found.map { $0 / largest }, expected.map { $0 / largest })
  }

  static let budgets: [(budget: Budget, structure: MatrixStructure)] = [
    (.lossless, .chain), (.lossless, .auto), (.ratio(0.6), .chain), (.ratio(0.6), .svd), (.ratio(0.6), .auto),
    (.maximumError(0.2), .auto),
  ]

  @Test(arguments: budgets, Gauge.allCases)
  func `errors are recorded as they are, for every magnitude`(
    _ wanted: (budget: Budget, structure: MatrixStructure), gauge: Gauge
  ) throws {
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.structure, recipe.gauge) = (wanted.budget, wanted.structure, gauge)
    recipe.selection.include = ["*"]
    let folder = try temporary.folder("out")
    try convert(source, recipe: recipe, to: folder, options: ConversionOptions(jobs: 2, generator: "tests"))
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(checkpoint.manifest.totals.relativeError.map { $0 >= 0 && $0 < 1 } ?? false)
    #expect(try Verifier(jobs: 2).verify(checkpoint, against: source).problems == [])
    try Restorer(jobs: 2).restoreFile(checkpoint, to: temporary.path + "/r.safetensors")
    let restored = try SafetensorsFile(path: temporary.path + "/r.safetensors")
    for record in checkpoint.contents.tensors {
      let error = trueError(try restored.values(of: record.name), try source.values(of: record.name))
      guard let blocks = record.blocks else {
        #expect(error == 0, "\(record.name)")
        continue
      }
      let recorded = try #require(blocks.relativeError)
      // To the rounding of the restored tensor, which is not part of what is stored.
      #expect(error <= recorded * (1 + 1e-6) + 1e-6, "\(record.name): \(error), recorded \(recorded)")
      #expect(recorded <= error * (1 + 1e-3) + 1e-6, "\(record.name): \(error), recorded \(recorded)")
      if wanted.budget == .lossless { #expect(recorded < 1e-5, "\(record.name)") }
      if case .maximumError(let maximum) = wanted.budget { #expect(recorded <= maximum, "\(record.name)") }
    }
    // Small matrices are not sacrificed to large ones: all of one spectrum get about the same bonds.
    if case .ratio = wanted.budget {
      let alike = checkpoint.contents.tensors.filter { ["ordinary", "tiny.f64", "huge.f64"].contains($0.name) }
      let errors = alike.map { $0.blocks?.relativeError ?? 0 }
      #expect((errors.max() ?? 1) < 1.5 * (errors.min() ?? 0) + 0.02, "\(errors)")
    }
  }

  @Test(arguments: MaskRule.Weights.allCases)
  func `a mask weights what can be squared, and the rest is decomposed without`(weights: MaskRule.Weights) throws {
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.structure) = (.ratio(0.6), .svd)
    recipe.selection.include = ["*"]
    recipe.mask = MaskRule(source: .zeros, weights: weights)
    let folder = try temporary.folder("out")
    try convert(source, recipe: recipe, to: folder, options: ConversionOptions(jobs: 2, generator: "tests"))
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(try Verifier(jobs: 2).verify(checkpoint, against: source).problems == [])
    for record in checkpoint.contents.tensors where record.blocks != nil {
      #expect((record.blocks?.metricRelativeError == nil) == record.name.hasSuffix(".f64"), "\(record.name)")
      #expect(record.blocks?.relativeError.map { $0 < 1 } ?? false, "\(record.name)")
    }
  }
}
