import Foundation
import TestSupport
import Testing

/// Links and shared centres from the command line.
@Suite struct LinkToolTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"

  init() throws { temporary = try TemporaryFolder() }

  private func path(_ name: String) -> String { temporary.path + "/" + name }

  @discardableResult
  private func run(_ arguments: [String], at location: SourceLocation = #_sourceLocation) throws -> String {
    let result = try Tool.Run(arguments).finish()
    #expect(result.status == 0, "\(arguments): \(result.messages)", sourceLocation: location)
    return result.output
  }

  @Test func `a recipe with links and centres makes the bytes that its options make, by stages and in parts too`()
    throws
  {
    let options = [
      "--structure", "svd", "--link", "encoder.layer.*.attention.self.{query,key}.weight", "--link-layers",
      "encoder.layer.*.intermediate.dense.weight=2", "--share-central", "encoder.layer.*.attention.self.value.weight",
      "--residual-rank", "5",
    ]
    let summary = try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.6"] + options)
    #expect(summary.contains("\n  linked      "))
    try run(["convert", bert, "-o", path("b.mpo"), "--like", path("a.mpo"), "--jobs", "1"])
    let recipe = try run(["inspect", path("a.mpo"), "--recipe"])
    #expect(
      recipe.contains("\nlinks:\n- glob: ") && recipe.contains("encoder.layer.*.attention.self.{query,key}.weight"))
    #expect(recipe.contains("  layers: 2\n") && recipe.contains("shared_centres:\n"))
    try Data(recipe.utf8).write(to: URL(filePath: path("r.yaml")))
    try run(["convert", bert, "-o", path("c.mpo"), "--recipe", path("r.yaml")])
    for part in 1...3 {
      try run(["profile", bert, "-o", path("p\(part).json"), "--part", "\(part)/3"] + options)
    }
    try run(["plan"] + (1...3).map { path("p\($0).json") } + ["-o", path("plan.json"), "--ratio", "0.6"])
    for part in 1...2 {
      try run(["convert", bert, "-o", path("\(part).mpo"), "--plan", path("plan.json"), "--part", "\(part)/2"])
    }
    try run(["merge", path("1.mpo"), path("2.mpo"), "-o", path("d.mpo")])
    for other in ["b", "c", "d"] {
      #expect(try Tool.shell("diff -r '\(path("a.mpo"))' '\(path(other + ".mpo"))'").status == 0, "\(other)")
    }
    try run(["verify", path("a.mpo"), "--against", bert])
    let text = try run(["inspect", path("a.mpo"), "--tensor", "encoder.layer.0.attention.self.value.weight"])
    #expect(text.contains("block 0     ") && text.contains(".value.weight.residual"))
    #expect(text.contains("central, shared") && text.contains(", its share of shared cores: "))
  }

  @Test(arguments: [
    (
      ["--link", "encoder.layer.*.attention.self.query.weight"],
      "--link 'encoder.layer.*.attention.self.query.weight': has no braces"
    ),
    (["--link", "encoder.layer.*.{intermediate,output}.dense.weight=outputs"], "have as many outputs"),
    (
      ["--share-central", "encoder.layer.0.attention.self.value.weight"],
      "--share-central 'encoder.layer.0.attention.self.value.weight': matches 1 matrix"
    ),
    (
      ["--link", "encoder.layer.*.attention.self.{query,key}.weight", "--exclude", "*.1.attention.self.key.weight"],
      "which is not decomposed"
    ),
  ])
  func `what can't be linked is named by its option`(options: [String], reason: String) throws {
    let result = try Tool.Run(["convert", bert, "-o", path("x.mpo"), "--ratio", "0.6"] + options).finish()
    #expect(result.status == 1 && result.messages.contains(reason), "\(result.messages)")
    #expect(!FileManager.default.fileExists(atPath: path("x.mpo")))
  }
}
