import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct MergerTests {
  private let temporary: TemporaryFolder
  private let source: any DenseCheckpoint
  private let profile: NetworkProfile
  private let plan: SqueezePlan

  init() throws {
    temporary = try TemporaryFolder()
    source = try openDenseCheckpoint(at: fixtures + "/tiny-bert")
    profile = try SourceNetwork(source, selection: TensorSelection())
      .profile(for: ConversionRecipe(), jobs: 2).profile
    plan = try SqueezePlan(profile, budget: .ratio(0.6))
  }

  private func content(of folder: String) throws -> [String: Data] {
    var result: [String: Data] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: folder) {
      result[name] = FileManager.default.contents(atPath: folder + "/" + name)
    }
    return result
  }

  @discardableResult
  private func convert(
    _ name: String, part: Int? = nil, of count: Int = 1, packs: Bool = false, gauge: Gauge = .compact,
    asked: Double = 0.6
  ) throws -> String {
    let folder = try temporary.folder(name)
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.pack, recipe.central, recipe.gauge) = (.ratio(asked), packs, packs ? .int8 : nil, gauge)
    var converter = Converter(recipe: recipe, jobs: 2, generator: "tests")
    converter.part = part.flatMap { SourceNetwork.Part(index: $0, count: count) }
    let plan =
      gauge == .compact ? self.plan : try SqueezePlan(profile, budget: .ratio(asked), gauge: gauge)
    try converter.convert(source, plan: plan, to: folder)
    return folder
  }

  private func merge(_ parts: [String]) throws -> String {
    let folder = try temporary.folder("merged-" + UUID().uuidString)
    try Merger(jobs: 2).merge(parts.map { try MPOCheckpoint(path: $0) }, to: folder)
    return folder
  }

  @Test(arguments: [
    (1, false, Gauge.compact), (2, false, .spectral), (3, true, .compact), (7, false, .canonical),
    (60, false, .compact),
  ])
  func `parts make the checkpoint of one conversion, byte for byte`(count: Int, packs: Bool, gauge: Gauge) throws {
    let whole = try content(of: convert("whole", packs: packs, gauge: gauge))
    let parts = try (1...count).map { try convert("part\($0)", part: $0, of: count, packs: packs, gauge: gauge) }
    let merged = try merge(parts.reversed())
    #expect(try content(of: merged) == whole)
    #expect(try Verifier(jobs: 2).verify(MPOCheckpoint(path: merged), against: source).problems.isEmpty)
    // A part is a checkpoint of its own.
    let report = try Verifier(jobs: 2).verify(MPOCheckpoint(path: parts[0]), against: source)
    #expect(report.problems.isEmpty)
    if count == 2 {
      expectFailure("part 1 of 2", "mpo merge") {
        try Restorer(jobs: 1).restoreFolder(MPOCheckpoint(path: parts[0]), to: temporary.folder("r"))
      }
    }
  }

  @Test func `HDF5 sources are merged with their skeletons`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/hdf5/keras_legacy.h5")
    var selection = TensorSelection()
    selection.include = ["*"]
    let plan = try SqueezePlan(
      SourceNetwork(source, selection: selection).profile(for: ConversionRecipe(), jobs: 2).profile, budget: .lossless)
    var converter = Converter(jobs: 1, generator: "tests")
    try converter.convert(source, plan: plan, to: temporary.folder("whole"))
    let parts = try (1...2).map { index in
      converter.part = SourceNetwork.Part(index: index, count: 2)
      let folder = try temporary.folder("part\(index)")
      try converter.convert(source, plan: plan, to: folder)
      return folder
    }
    let merged = try merge(parts)
    #expect(try content(of: merged).keys == content(of: temporary.path + "/whole").keys)
    try Restorer(jobs: 1).restoreFile(
      MPOCheckpoint(path: merged), to: temporary.path + "/m.h5", as: .hdf5)
  }

  @Test func `parts that do not belong together are refused by name`() throws {
    let one = try convert("one", part: 1, of: 2)
    let two = try convert("two", part: 2, of: 2)
    let third = try convert("third", part: 2, of: 3)
    let other = try convert("other", part: 2, of: 2, asked: 0.7)
    let whole = try convert("whole")
    expectFailure(whole, "not a part", "--part") { _ = try merge([one, whole]) }
    expectFailure(one, "is one of 2 parts; not given: 2") { _ = try merge([one]) }
    expectFailure(one, "is part 1 of 2", "give each part once") { _ = try merge([one, two, one]) }
    expectFailure(third, "another conversion", "numbers of parts differ") { _ = try merge([one, third]) }
    expectFailure(other, "another conversion", "recipe") { _ = try merge([one, other]) }
    let shard = URL(filePath: two + "/tensors.safetensors")
    var bytes = try Data(contentsOf: shard)
    bytes[bytes.count - 1] ^= 1
    try bytes.write(to: shard)
    expectFailure(two + "/tensors.safetensors", "was changed after it was written") { _ = try merge([one, two]) }
  }

  @Test func `each file of the source is read by one part, and merged they have the checksums of all`() throws {
    let sharded = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    try #require(sharded.files.count > 2)
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.6)
    let pipeline = try ConversionPipeline(
      sharded, recipe: recipe, options: ConversionOptions(jobs: 2, generator: "tests"))
    let plan = try pipeline.plan(pipeline.profile())
    try pipeline.decompose(plan, to: temporary.folder("whole"))
    let parts = try (1...2).map { index in
      let folder = try temporary.folder("part\(index)")
      try pipeline.decompose(plan, to: folder, part: SourceNetwork.Part(index: index, count: 2))
      return folder
    }
    let counts = try parts.map { try MPOCheckpoint(path: $0).manifest.source?.files.count ?? 0 }
    #expect(counts.allSatisfy { $0 > 0 } && counts.reduce(0, +) == sharded.files.count)
    #expect(try content(of: merge(parts)) == content(of: temporary.path + "/whole"))
    for part in parts {
      let report = try Verifier(jobs: 2).verify(MPOCheckpoint(path: part), against: sharded)
      #expect(report.problems.isEmpty, "\(report.problems)")
    }
  }

  @Test func `parts of another model are refused`() throws {
    let one = try convert("one", part: 1, of: 2)
    let sharded = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let plan = try SqueezePlan(
      SourceNetwork(sharded, selection: TensorSelection()).profile(for: ConversionRecipe(), jobs: 2).profile,
      budget: .ratio(0.6))
    var converter = Converter(jobs: 2, generator: "tests")
    converter.part = SourceNetwork.Part(index: 2, count: 2)
    let two = try temporary.folder("two")
    try converter.convert(sharded, plan: plan, to: two)
    expectFailure(two, "source files") { _ = try merge([one, two]) }
  }
}
