import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Names are bytes: "é" as one character and as two are different names, although Swift's strings are equal.
@Suite struct EquivalentNamesTests {
  private let temporary: TemporaryFolder
  private let source: any DenseCheckpoint
  private static let one = "caf\u{E9}.weight"
  private static let other = "cafe\u{301}.weight"

  init() throws {
    temporary = try TemporaryFolder()
    let first = ModelTensor.random(Self.one, [64, 72], seed: 1)
    source = try writeModel(
      [
        first, .random(Self.other, [64, 72], seed: 2), .random("caf\u{E9}.bias", [8], seed: 3),
        .random("cafe\u{301}.bias", [8], seed: 4), first.named("ti\u{E9}"),
        ModelTensor.random(Self.other, [64, 72], seed: 2).named("tie\u{301}"),
      ], to: temporary.path + "/model.safetensors")
  }

  private func restored(_ checkpoint: MPOCheckpoint) throws -> SafetensorsFile {
    let path = temporary.path + "/" + UUID().uuidString + ".safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    return try SafetensorsFile(path: path)
  }

  @Test func `the names are equal as strings`() { #expect(Self.one == Self.other) }

  @Test(arguments: [false, true])
  func `a lossless conversion restores both, from one run and from parts`(packs: Bool) throws {
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.pack) = (.lossless, packs)
    let options = ConversionOptions(jobs: 2, generator: "tests")
    let whole = try temporary.folder("whole")
    try convert(source, recipe: recipe, to: whole, options: options)
    let pipeline = try ConversionPipeline(source, recipe: recipe, options: options)
    let plan = try pipeline.plan(pipeline.profile())
    let parts = try (1...3).map { index in
      let folder = try temporary.folder("part\(index)")
      try pipeline.decompose(plan, to: folder, part: SourceNetwork.Part(index: index, count: 3))
      return try MPOCheckpoint(path: folder)
    }
    let merged = try temporary.folder("merged")
    try Merger(jobs: 2).merge(parts, to: merged)
    for name in try FileManager.default.contentsOfDirectory(atPath: whole) {
      #expect(FileManager.default.contentsEqual(atPath: whole + "/" + name, andPath: merged + "/" + name))
    }
    let checkpoint = try MPOCheckpoint(path: merged)
    #expect(checkpoint.contents.operators.count == 2)
    #expect(try Verifier(jobs: 2).verify(checkpoint, against: source).problems == [])
    let found = try restored(checkpoint)
    #expect(found.tensors.map { Array($0.name.utf8) } == source.tensors.map { Array($0.name.utf8) })
    for tensor in source.tensors {
      #expect(relativeDifference(try found.values(of: tensor.name), try source.values(of: tensor.name)) < 1e-6)
      if tensor.shape.count == 1 { #expect(try found.bytes(of: tensor.name) == source.bytes(of: tensor.name)) }
    }
  }

  @Test func `metadata with both names are carried`() throws {
    let metadata: CheckpointMetadata = ["\u{E9}": "1", "e\u{301}": "2", "format": "pt"]
    let path = temporary.path + "/metadata.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: source.tensors, metadata: metadata)
    for tensor in source.tensors { try source.withBytes(of: tensor) { try writer.write($0, to: tensor.name) } }
    try writer.finish()
    let checkpoint = try converted(openDenseCheckpoint(at: path), .lossless, to: temporary.folder("metadata"))
    #expect(checkpoint.manifest.source?.metadata == metadata)
    #expect(try restored(checkpoint).metadata == metadata)
  }

  @Test func `each has a plan, errors and statistics of its own`() throws {
    let checkpoint = try converted(source, .ratio(0.6), to: temporary.folder("ratio"))
    #expect(try Verifier(jobs: 2).verify(checkpoint, against: source).problems == [])
    let writer = try SafetensorsWriter(
      path: temporary.path + "/stats.safetensors",
      tensors: [
        TensorInfo(name: Self.one + ".column_scale", dtype: .f32, shape: [72]),
        TensorInfo(name: Self.other + ".column_scale", dtype: .f32, shape: [72]),
      ], metadata: ["format": CalibrationStatistics.formatName, "version": "2"])
    for (name, value) in [(Self.one, Float(2)), (Self.other, 3)] {
      try Array(repeating: value, count: 72).withUnsafeBytes { try writer.write($0, to: name + ".column_scale") }
    }
    try writer.finish()
    let statistics = try CalibrationStatistics(path: temporary.path + "/stats.safetensors")
    #expect(statistics.matrices.count == 2)
    for (name, value) in [(Self.one, 4.0), (Self.other, 9)] {
      let found = source.tensor(named: name)
      let metric = try statistics.metric(of: try #require(found), rows: 64, columns: 72)
      #expect(metric == Metric(rows: .identity, columns: .diagonal(Array(repeating: value, count: 72))))
    }
  }
}
