import Conversion
import Foundation
import Recipes
import Squeezing
import TensorNetworks
import Testing

@testable import Reports

@Suite struct ReportTests {
  private static let texts = Report.Texts(
    generator: "mpo", command: { _ in "mpo convert MODEL" },
    loading: [LoadingStep("Load", language: "sh", code: "mpo restore OUT.mpo")],
    withoutProfile: "Give a profile.")

  /// The profile of a network of matrices 64 × 64 with falling singular values.
  private func profile(_ names: [String], side: Int = 64) -> StageFile.Profile {
    let layers = names.enumerated().map { index, name in
      let values = (0..<side).map { 1 / (1 + Double($0) / Double(2 + index % 7)) }
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      return LayerProfile(
        name: name, split: .lowRank(rows: side, columns: side), norm: norm, singularValues: values)
    }
    var recipe = ConversionRecipe()
    recipe.structure = .svd
    return StageFile.Profile(
      source: "model", part: nil, recipe: recipe,
      network: NetworkProfile(
        parameters: side * side * names.count + 100, tiedParameters: 0, layers: layers))
  }

  private func plan(_ profile: StageFile.Profile, ratio: Double) throws -> StageFile.Plan {
    var recipe = profile.recipe
    recipe.budget = .ratio(ratio)
    return StageFile.Plan(try recipe.plan(profile.network, path: "profile.json"), recipe: recipe)
  }

  private let names =
    ["embeddings.weight"] + (0..<3).flatMap { ["layers.\($0).q.weight", "layers.\($0).v.weight"] }

  @Test func `a page has every matrix with its figures`() throws {
    let profile = profile(names)
    let plan = try plan(profile, ratio: 0.6)
    let report = try Report(
      subjects: [try ReportSubject(plan, path: "plan.json")], profile: ("profile.json", profile),
      texts: Self.texts)
    let page = try report.html()
    for layer in plan.plan.layers {
      #expect(page.contains("<th scope=row>\(layer.name)</th>"))
      #expect(page.contains(fixed(Double(layer.parameters) / 4096, 4)))
    }
    #expect(page.contains("\(grouped(plan.plan.parametersAfter))"))
    #expect(page.contains("mpo convert MODEL") && page.contains("ratio: 0.6"))
    for kind in ["budget", "kinds", "spectrum", "errors", "chain"] {
      #expect(page.contains("class=\"picture \(kind)\""), "\(kind)")
    }
  }

  @Test func `nothing leaves the page and nothing runs in it`() throws {
    let profile = profile(names)
    let page = try Report(
      subjects: [try ReportSubject(plan(profile, ratio: 0.5), path: "plan.json")],
      profile: ("p", profile),
      texts: Self.texts
    ).html()
    for part in ["<script", "http:", "https:", "@import", "url(", " onload", "<img", "<iframe"] {
      #expect(!page.contains(part), "\(part)")
    }
    #expect(page.contains("default-src 'none'"))
  }

  @Test(arguments: [
    "<script>alert(1)</script>", "a\"><img src=x onerror=alert(1)>", "x\"\u{301} onfocus=\u{27}y",
    "{{title}}",
    "a&amp;b",
  ])
  func `markup in a name is text`(name: String) throws {
    let profile = profile([name, "layers.0.\(name).weight"])
    let page = try Report(
      subjects: [try ReportSubject(plan(profile, ratio: 0.5), path: name)],
      profile: (name, profile), texts: Self.texts
    ).html()
    #expect(!page.contains("<script") && !page.contains("<img") && !page.contains("x\"\u{301}"))
    #expect(page.unicodeScalars.ranges(of: SVG.escape(name).unicodeScalars).count > 4)
  }

  @Test func `several columns have letters, and one model`() throws {
    let profile = profile(names)
    let subjects = try [0.4, 0.7].map {
      try ReportSubject(plan(profile, ratio: $0), path: "plan\($0).json")
    }
    let page = try Report(subjects: subjects, profile: ("p", profile), texts: Self.texts).html()
    #expect(page.contains("A: plan0.4.json") && page.contains("B: plan0.7.json"))

    let other = self.profile(["embeddings.weight", "layers.0.k.weight"])
    #expect(throws: ReportError.self) {
      try Report(
        subjects: [subjects[0], try ReportSubject(plan(other, ratio: 0.5), path: "other.json")],
        profile: nil,
        texts: Self.texts)
    }
    let wide = self.profile(names, side: 128)
    let found = #expect(throws: ReportError.self) {
      try Report(subjects: subjects, profile: ("wide.json", wide), texts: Self.texts)
    }
    #expect(found?.description.contains("wide.json: is of another model than plan0.4.json") == true)
  }

  @Test func `impossible sizes are refused`() throws {
    let text = """
      {"budget": "ratio 1", "criterion": "error", "parameters_before": 4, "parameters_after": 4, "layers": [{"name": "a",
      "split": {"rows": 4611686018427387904, "columns": 4, "shape": {"row_factors": [4, 1], "column_factors": [1, 4]}},
      "gauge": "compact", "parameters": 4, "norm": 1}]}
      """
    let plan = try JSONDecoder().decode(SqueezePlan.self, from: Data(text.utf8))
    #expect(throws: ReportError.contradiction(path: "p", matrix: "a")) {
      try ReportSubject(StageFile.Plan(plan, recipe: ConversionRecipe()), path: "p")
    }
  }

  @Test func `a page of ten thousand matrices has at most five megabytes`() throws {
    let names = (0..<250).flatMap { layer in
      (0..<40).map { "model.decoder.layers.\(layer).mlp.experts.\($0).down_proj.weight" }
    }
    let layers = names.map {
      LayerProfile(
        name: $0, split: .lowRank(rows: 64, columns: 64), norm: 1,
        singularValues: (0..<64).map { 1 / Double($0 + 1) })
    }
    let network = NetworkProfile(parameters: 4096 * names.count, tiedParameters: 0, layers: layers)
    var recipe = ConversionRecipe()
    recipe.structure = .svd
    recipe.budget = .ratio(0.5)
    let plan = StageFile.Plan(try recipe.plan(network, path: "p"), recipe: recipe)
    let file = StageFile.Profile(source: "m", part: nil, recipe: recipe, network: network)
    let report = try Report(
      subjects: [try ReportSubject(plan, path: "plan.json")], profile: ("p", file), texts: Self.texts)
    let page = try report.html()
    #expect(page.utf8.count <= 5_000_000, "\(page.utf8.count)")
    #expect(page.contains("100 of 10000 matrices: those that lose most."))
    let chosen = try Report(
      subjects: [try ReportSubject(plan, path: "plan.json")], profile: nil, chosen: ["*.layers.7.*"],
      texts: Self.texts)
    #expect(try chosen.html().contains("40 of 10000 matrices: those that --matrix asks for."))
    #expect(throws: ReportError.globMatchesNothing(glob: "nothing*", path: "plan.json")) {
      try Report(
        subjects: [try ReportSubject(plan, path: "plan.json")], profile: nil, chosen: ["nothing*"],
        texts: Self.texts)
    }
  }
}
