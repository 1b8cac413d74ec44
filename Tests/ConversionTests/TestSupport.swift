import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// A tensor to be written to a test's model.
struct ModelTensor {
  let info: TensorInfo
  let values: [Double]

  init(_ name: String, _ dtype: DType = .f32, _ shape: [Int], _ values: [Double]) {
    info = TensorInfo(name: name, dtype: dtype, shape: shape)
    self.values = values
  }

  /// Uniform in ±1, the columns falling off.
  static func random(
    _ name: String, _ shape: [Int], _ dtype: DType = .f32, decay: Double = 0.98, seed: UInt64
  ) -> ModelTensor {
    var generator = SeededGenerator(seed: seed)
    let columns = shape.last ?? 1
    return ModelTensor(
      name, dtype, shape,
      (0..<shape.reduce(1, *)).map { index in
        Double.random(in: -1...1, using: &generator) * pow(decay, Double(index % columns))
      })
  }

  func named(_ name: String) -> ModelTensor { ModelTensor(name, info.dtype, info.shape, values) }

  var bytes: [UInt8] {
    get throws {
      guard info.dtype.isDecomposable else {
        return values.flatMap { withUnsafeBytes(of: Int64($0).littleEndian) { Array($0) } }
      }
      var bytes = [UInt8](repeating: 0, count: info.byteCount)
      try values.withUnsafeBufferPointer { values in
        try bytes.withUnsafeMutableBytes { try TensorElements.encode(values, as: info.dtype, into: $0) }
      }
      return bytes
    }
  }
}

/// Whether a conversion whose profile is made in so many parts, and whose decomposition in two, which are merged, has the
/// bytes of one run.
func expectSameInParts(
  _ pipeline: ConversionPipeline, profileParts: Int, as whole: MPOCheckpoint, in temporary: TemporaryFolder
) throws {
  let profiles = try (1...profileParts).map { index in
    let part = SourceNetwork.Part(index: index, count: profileParts)
    return (
      "part \(index)",
      StageFile.Profile(
        source: pipeline.source.path, part: part, recipe: pipeline.recipe, network: try pipeline.profile(part: part))
    )
  }
  let plan = try pipeline.plan(StageFile.merge(profiles).network)
  let parts = try (1...2).map { index in
    let folder = try temporary.folder(UUID().uuidString)
    try pipeline.decompose(plan, to: folder, part: SourceNetwork.Part(index: index, count: 2))
    return try MPOCheckpoint(path: folder)
  }
  try expectSameWhenMerged(parts, as: whole, in: temporary)
}

/// Whether parts, merged, have the bytes of one run.
func expectSameWhenMerged(_ parts: [MPOCheckpoint], as whole: MPOCheckpoint, in temporary: TemporaryFolder) throws {
  let folder = try temporary.folder("merged")
  try Merger(jobs: 2).merge(parts, to: folder)
  for name in ["manifest.json", "tensors.safetensors"] {
    #expect(
      FileManager.default.contents(atPath: folder + "/" + name)
        == FileManager.default.contents(atPath: whole.path + "/" + name))
  }
}

/// Writes a safetensors file and opens it.
func writeModel(_ tensors: [ModelTensor], to path: String) throws -> any DenseCheckpoint {
  let writer = try SafetensorsWriter(path: path, tensors: tensors.map(\.info), metadata: ["format": "pt"])
  for tensor in tensors {
    let bytes = try tensor.bytes
    try bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) }
  }
  try writer.finish()
  return try openDenseCheckpoint(at: path)
}

extension DenseCheckpoint {
  func bytes(of name: String) throws -> [UInt8] {
    let found = tensor(named: name)
    return try withBytes(of: try #require(found)) { Array($0) }
  }

  /// The elements of a floating-point tensor.
  func values(of name: String) throws -> [Double] {
    let found = tensor(named: name)
    return try withDoubles(of: try #require(found)) { Array($0) }
  }
}

/// Converts by a recipe into a new folder, and opens the result.
func converted(
  _ checkpoint: any DenseCheckpoint, _ budget: Budget, to folder: String,
  selection: TensorSelection = TensorSelection(),
  dtype: DType? = nil, central: CentralEncoding? = nil, gauge: Gauge = .compact, jobs: Int = 2
) throws -> MPOCheckpoint {
  var recipe = ConversionRecipe()
  (recipe.budget, recipe.selection, recipe.dtype, recipe.gauge) = (budget, selection, dtype, gauge)
  recipe.central = central
  try convert(checkpoint, recipe: recipe, to: folder, options: ConversionOptions(jobs: jobs, generator: "tests"))
  return try MPOCheckpoint(path: folder)
}

/// `‖a − b‖ / ‖b‖`.
func relativeDifference(_ a: [Double], _ b: [Double]) -> Double {
  let difference = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
  return (difference / b.reduce(0) { $0 + $1 * $1 }).squareRoot()
}

/// Checks that `body` fails with one line that has all of `parts` in it.
func expectFailure(
  _ parts: String..., at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) {
  do {
    try body()
    Issue.record("nothing was thrown", sourceLocation: location)
  } catch {
    let message = "\(error)"
    #expect(!message.contains("\n"), sourceLocation: location)
    for part in parts {
      #expect(message.contains(part), "'\(part)' is not in: \(message)", sourceLocation: location)
    }
  }
}
