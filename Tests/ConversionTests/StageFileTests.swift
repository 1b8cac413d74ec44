import Checkpoints
import Foundation
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct StageFileTests {
  private let network: NetworkProfile

  init() throws {
    let checkpoint = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    network = try SourceNetwork(checkpoint, selection: TensorSelection()).profile(for: ConversionRecipe(), jobs: 2)
      .profile
  }

  private func profile(
    _ part: (Int, Int)? = nil, _ network: NetworkProfile? = nil, recipe: ConversionRecipe = ConversionRecipe()
  ) throws -> StageFile.Profile {
    let part = try part.map { try #require(SourceNetwork.Part(index: $0.0, count: $0.1)) }
    return StageFile.Profile(
      source: "m", part: part, recipe: recipe, sourceDType: .f16, network: network ?? self.network)
  }

  private func decode(_ text: String) throws -> StageFile.Profile {
    try StageFile.decode(
      Array(text.utf8), as: StageFile.Profile.self, format: StageFile.Profile.formatName, path: "p.json")
  }

  /// The text of a file with a member replaced.
  private func text(_ content: some Encodable, _ change: (inout [String: Any]) -> Void) throws -> String {
    let data = Data(try StageFile.encode(content))
    var object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    change(&object)
    return String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
  }

  @Test func `a profile and a plan are read as they were written`() throws {
    let bytes = try StageFile.encode(profile((2, 3)))
    #expect(bytes.last == UInt8(ascii: "\n"))
    let read = try decode(String(decoding: bytes, as: UTF8.self))
    #expect(read.network == network && read.source == "m" && read.part?.index == 2 && read.part?.count == 3)
    #expect(read.recipe == ConversionRecipe() && read.sourceDType == .f16)
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.7)
    recipe.pack = true
    let plan = try recipe.plan(network, path: "p.json")
    let planBytes = try StageFile.encode(StageFile.Plan(plan, recipe: recipe))
    let readPlan = try StageFile.decode(
      planBytes, as: StageFile.Plan.self, format: StageFile.Plan.formatName, path: "")
    #expect(readPlan.plan == plan && readPlan.recipe == recipe)
    #expect(planBytes == (try StageFile.encode(StageFile.Plan(recipe.plan(network, path: ""), recipe: recipe))))
  }

  @Test func `the members of both files are in the open`() throws {
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(StageFile.encode(profile((1, 1))))) as? [String: Any])
    #expect(Set(object.keys) == ["format", "version", "source", "part", "recipe", "source_dtype", "network"])
    #expect(object["format"] as? String == "mpo-profile" && object["version"] as? Int == 2)
    let network = try #require(object["network"] as? [String: Any])
    #expect(Set(network.keys) == ["parameters", "tied_parameters", "bytes", "tied_bytes", "layers"])
    let plan = try #require(
      JSONSerialization.jsonObject(
        with: Data(
          StageFile.encode(StageFile.Plan(SqueezePlan(self.network, budget: .bond(4)), recipe: ConversionRecipe()))))
        as? [String: Any])
    #expect(plan["format"] as? String == "mpo-plan" && plan["version"] as? Int == 2)
    #expect(plan["recipe"] is [String: Any])
    let content = try #require(plan["plan"] as? [String: Any])
    #expect(Set(content.keys) == ["budget", "criterion", "layers", "parameters_before", "parameters_after"])
  }

  @Test(arguments: [
    "", "{", "[]", "1", "{}", "{\"format\":\"mpo-plan\",\"version\":1}", "{\"format\":\"mpo-profile\"}",
  ])
  func `what is not a profile is refused`(text: String) {
    expectFailure("p.json", "is not what 'mpo profile' writes") { _ = try decode(text) }
  }

  @Test func `another version or a damaged file is refused`() throws {
    let newer = try text(profile()) { $0["version"] = 3 }
    expectFailure("p.json", "version 3", "update") { _ = try decode(newer) }
    let older = try text(profile()) { $0["version"] = 1 }
    expectFailure("p.json", "version 1", "unreleased", "make it again") { _ = try decode(older) }
    let damaged = try text(profile()) { $0["network"] = nil }
    expectFailure("p.json", "is damaged") { _ = try decode(damaged) }
  }

  @Test(arguments: [[0, 1], [1, 0], [2, 1], [-1, -1], [1, -3]])
  func `an invalid part is refused`(part: [Int]) throws {
    let damaged = try text(profile((1, 1))) { $0["part"] = ["index": part[0], "count": part[1]] }
    expectFailure("p.json", "is damaged") { _ = try decode(damaged) }
  }

  @Test func `parts that do not make a whole are refused`() throws {
    let (a, b, c) = (try profile((1, 3)), try profile((2, 3)), try profile((3, 3)))
    expectFailure("a.json", "part 2 is not given") { _ = try StageFile.merge([("a.json", a), ("c.json", c)]) }
    expectFailure("b.json", "part 1 of 3, which was given already") {
      _ = try StageFile.merge([("a.json", a), ("b.json", a), ("c.json", c)])
    }
    expectFailure("d.json", "another division") {
      _ = try StageFile.merge([("a.json", a), ("d.json", profile((2, 4)))])
    }
    let other = NetworkProfile(parameters: 1, tiedParameters: 0, layers: [])
    expectFailure("o.json", "another model", "a.json") {
      _ = try StageFile.merge([("a.json", a), ("o.json", profile((2, 3), other))])
    }
    expectFailure("a.json", "as another part does") {
      _ = try StageFile.merge([("a.json", a), ("b.json", b), ("c.json", c)])
    }
    expectFailure("given already") { _ = try StageFile.merge([("a.json", profile()), ("b.json", profile())]) }
    var svd = ConversionRecipe()
    svd.structure = .svd
    expectFailure("b.json was made with 'structure' svd", "a.json with 'structure' auto") {
      _ = try StageFile.merge([("a.json", a), ("b.json", profile((2, 3), recipe: svd))])
    }
  }

  // MARK: - Plans

  private func convert(_ plan: SqueezePlan) throws {
    let temporary = try TemporaryFolder()
    let checkpoint = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    try Converter(jobs: 2, generator: "tests").convert(checkpoint, plan: plan, to: temporary.folder("a.mpo"))
  }

  @Test func `a plan for another model is refused with the tensor that does not fit`() throws {
    let other = try openDenseCheckpoint(at: fixtures + "/tiny-bert")
    let profile = try SourceNetwork(other, selection: TensorSelection()).profile(for: ConversionRecipe(), jobs: 2)
      .profile
    let plan = try SqueezePlan(profile, budget: .ratio(0.7))
    expectFailure("tiny-bert-sharded", "embeddings.position_embeddings.weight", "plan") { try convert(plan) }
    var renamed = network
    renamed.layers = network.layers.map {
      LayerProfile(
        name: $0.name == "embeddings.word_embeddings.weight" ? "other" : $0.name, split: $0.split, norm: $0.norm,
        spectra: $0.spectra, singularValues: $0.singularValues)
    }
    expectFailure("'other'", "in the plan but not in the model") {
      try convert(SqueezePlan(renamed, budget: .ratio(0.7)))
    }
  }

  @Test func `a plan for the same name and size but other sides is refused`() throws {
    let name = "encoder.layer.0.intermediate.dense.weight"
    let plan = try changedPlan(name) {
      $0["rows"] = 64
      $0["columns"] = 128
      $0["shape"] = ["row_factors": [8, 8], "column_factors": [8, 16]]
      $0["bonds"] = [4]
    }
    expectFailure("'\(name)'", "128", "64") { try convert(plan) }
  }

  @Test(arguments: [[], [4], [4, 8, 8], [4, 8, 8, 4, 4]])
  func `a plan with too few or too many bonds is refused`(bonds: [Int]) throws {
    let name = "encoder.layer.0.attention.self.key.weight"
    let plan = try changedPlan(name) { $0["bonds"] = bonds }
    expectFailure("'\(name)'", "contradicts itself") { try convert(plan) }
  }

  @Test(arguments: [
    [[8, 7], [8, 8]], [[8, 8], [8, 7]], [[1 << 20, 1 << 20], [8, 8]], [[8, 8], [1 << 30, 1 << 20]],
  ])
  func `a plan whose factors do not fit its matrix is refused`(factors: [[Int]]) throws {
    let name = "encoder.layer.0.attention.self.key.weight"
    let plan = try changedPlan(name) {
      $0["shape"] = ["row_factors": factors[0], "column_factors": factors[1]]
      $0["bonds"] = [4]
    }
    expectFailure("'\(name)'", "contradicts itself") { try convert(plan) }
  }

  @Test func `sides that overflow are refused`() throws {
    let name = "encoder.layer.0.attention.self.key.weight"
    let plan = try changedPlan(name) {
      $0["rows"] = 1 << 40
      $0["columns"] = 1 << 40
    }
    expectFailure("'\(name)'") { try convert(plan) }
  }

  /// The plan for half of the parameters with one layer changed.
  private func changedPlan(_ name: String, _ change: (inout [String: Any]) -> Void) throws -> SqueezePlan {
    let text = try text(StageFile.Plan(SqueezePlan(network, budget: .ratio(0.5)), recipe: ConversionRecipe())) {
      object in
      var plan = object["plan"] as? [String: Any] ?? [:]
      var layers = plan["layers"] as? [[String: Any]] ?? []
      for index in layers.indices where layers[index]["name"] as? String == name {
        // The members of the split are changed as if they were the layer's own.
        layers[index].merge(layers[index]["split"] as? [String: Any] ?? [:]) { $1 }
        change(&layers[index])
        layers[index]["split"] = layers[index].filter { ["rows", "columns", "shape"].contains($0.key) }
      }
      plan["layers"] = layers
      object["plan"] = plan
    }
    return try StageFile.decode(
      Array(text.utf8), as: StageFile.Plan.self, format: StageFile.Plan.formatName, path: "plan.json"
    ).plan
  }
}
