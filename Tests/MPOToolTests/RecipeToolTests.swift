import Checkpoints
import Files
import Foundation
import TestSupport
import Testing

/// Recipes on their way from options to plans, manifests and files, and back.
@Suite struct RecipeToolTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private let key = "encoder.layer.0.attention.self.key.weight"

  init() throws { temporary = try TemporaryFolder() }

  private func path(_ name: String) -> String { temporary.path + "/" + name }

  @discardableResult
  private func run(
    _ arguments: [String], at location: SourceLocation = #_sourceLocation
  ) throws -> Tool.Result {
    let result = try Tool.Run(arguments).finish()
    #expect(result.status == 0, "\(arguments): \(result.messages)", sourceLocation: location)
    return result
  }

  /// Whether two folders have the same files with the same bytes.
  private func isSame(_ a: String, _ b: String) throws -> Bool {
    try Tool.shell("diff -r '\(path(a))' '\(path(b))'").status == 0
  }

  /// Statistics of all matrices: random scales of the columns.
  private func statistics(_ name: String, seed: UInt64, description: String? = nil) throws -> String {
    var generator = SeededGenerator(seed: seed)
    let matrices = try openDenseCheckpoint(at: bert).tensors.filter { $0.shape.count == 2 }
    let scales = matrices.map { TensorInfo(name: $0.name + ".column_scale", dtype: .f32, shape: [$0.shape[1]]) }
    var metadata = ["format": "mpo-statistics", "version": "2"]
    metadata["description"] = description
    let writer = try SafetensorsWriter(path: path(name), tensors: scales, metadata: CheckpointMetadata(metadata))
    for scale in scales {
      let values = (0..<scale.elementCount).map { _ in Float.random(in: 0.1...2, using: &generator) }
      try values.withUnsafeBytes { try writer.write($0, to: scale.name) }
    }
    try writer.finish()
    return path(name)
  }

  // MARK: - The same bytes

  static let options: [[String]] = [
    ["--ratio", "0.6"], ["--bond", "12", "--min-bond", "3", "--tie", "*.self.*.weight"], ["--lossless"],
    ["--max-error", "0.3", "--criterion", "error", "--sites", "3", "--exclude", "embeddings.*"],
    ["--ratio", "0.5", "--structure", "auto", "--dtype", "bf16", "--central", "int8", "--pack"],
    ["--ratio", "0.7", "--structure", "svd", "--gauge", "canonical", "--include", "encoder.*"],
    ["--ratio", "0.7", "--gauge", "spectral", "--shape", "*.key.weight=8,16x16,8"],
  ]

  @Test(arguments: options) func `a recipe makes the bytes that its options make`(options: [String]) throws {
    try run(["convert", bert, "-o", path("a.mpo")] + options)
    try run(["convert", bert, "-o", path("b.mpo"), "--like", path("a.mpo"), "--jobs", "1"])
    #expect(try isSame("a.mpo", "b.mpo"))
    let yaml = try run(["inspect", path("a.mpo"), "--recipe"]).output
    try temporary.write(yaml, to: "r.yaml")
    try run(["convert", bert, "-o", path("c.mpo"), "--recipe", path("r.yaml")])
    #expect(try isSame("a.mpo", "c.mpo"))
    #expect(try run(["inspect", path("c.mpo"), "--recipe"]).output == yaml)
  }

  @Test(arguments: options) func `stages make the bytes that one command makes`(options: [String]) throws {
    try run(["convert", bert, "-o", path("a.mpo")] + options)
    // Options of the first stage: what the profile depends on.
    let first = ["--structure", "--sites", "--shape", "--include", "--exclude"]
    var (profile, plan): ([String], [String]) = ([], [])
    var words = options[...]
    while let word = words.popFirst() {
      var group = [word]
      if let value = words.first, !value.hasPrefix("--") { group.append(words.removeFirst()) }
      if first.contains(word) { profile += group } else { plan += group }
    }
    try run(["profile", bert, "-o", path("p.json")] + profile)
    try run(["plan", path("p.json"), "-o", path("plan.json")] + plan)
    try run(["convert", bert, "-o", path("b.mpo"), "--plan", path("plan.json")])
    #expect(try isSame("a.mpo", "b.mpo"))
  }

  @Test func `a recipe on stdin and a recipe with defaults left out are read`() throws {
    try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.6"])
    let result = try Tool.shell(
      "echo 'budget: {ratio: 0.6}' | $MPO convert '\(bert)' -o '\(path("b.mpo"))' --recipe -")
    #expect(result.status == 0, "\(result.messages)")
    #expect(try isSame("a.mpo", "b.mpo"))
  }

  @Test func `a plan from a profile by a recipe needs no further option`() throws {
    try temporary.write("budget: {ratio: 0.6}\nstructure: svd\n", to: "r.yaml")
    try run(["convert", bert, "-o", path("a.mpo"), "--recipe", path("r.yaml")])
    try run(["profile", bert, "-o", path("p.json"), "--recipe", path("r.yaml")])
    try run(["plan", path("p.json"), "-o", path("plan.json")])
    try run(["convert", bert, "-o", path("b.mpo"), "--plan", path("plan.json")])
    #expect(try isSame("a.mpo", "b.mpo"))
    expectFailure(
      try Tool.run("plan", path("p.json"), "-o", "-", "--ratio", "0.5"), path("p.json"),
      "was made with --ratio 0.6, not --ratio 0.5")
  }

  // MARK: - What is wrong with a recipe

  @Test(arguments: [
    ("budget: {ratio: 0.6}\nstucture: svd", ["line 2", "'stucture'", "'structure'"]),
    ("structure: mpo", ["line 1", "'structure' must be chain, svd or auto"]),
    ("budget: {bond: 6}\nminimum_bond: 8", ["'budget.bond' 6 is below 'minimum_bond' 8"]),
    ("structure: svd", ["has no budget"]), ("[", ["is not YAML"]),
  ])
  func `a recipe that can't be followed is one line with the file's name`(text: String, parts: [String]) throws {
    let file = try temporary.write(text, to: "r.yaml")
    let result = try Tool.run("convert", bert, "-o", path("a.mpo"), "--recipe", file)
    expectFailure(result)
    for part in [text == "structure: svd" ? bert : file] + parts {
      #expect(result.messages.contains(part), "'\(part)' is not in: \(result.messages)")
    }
    #expect(try temporary.names == ["r.yaml"])
  }

  @Test func `a checkpoint without a recipe is refused with the reason`() throws {
    expectFailure(try Tool.run("inspect", bert, "--recipe"), bert)
    expectFailure(try Tool.run("convert", bert, "-o", path("a.mpo"), "--like", bert), bert)
    expectFailure(try Tool.run("convert", bert, "-o", path("a.mpo"), "--recipe", path("none")), path("none"), "no such")
  }

  @Test func `the recipe of a checkpoint that was squeezed since makes what it was before, with a warning`() throws {
    try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.6"])
    try run([
      "squeeze", path("a.mpo"), "-o", path("s.mpo"), "--evaluate", "echo 1", "--max-drop", "0", "--max-steps", "1",
    ])
    let result = try run(["convert", bert, "-o", path("b.mpo"), "--like", path("s.mpo")])
    #expect(result.messages.hasPrefix("mpo: warning: \(path("s.mpo")) was squeezed"), "\(result.messages)")
    #expect(try isSame("a.mpo", "b.mpo"))
  }

  // MARK: - Stages that disagree

  @Test func `plan refuses another structure than that of the profile`() throws {
    try run(["profile", bert, "-o", path("p.json"), "--structure", "svd"])
    expectFailure(
      try Tool.run("plan", path("p.json"), "-o", path("plan.json"), "--ratio", "0.5", "--structure", "auto"),
      path("p.json"), "was made with --structure svd, not --structure auto")
    try run(["plan", path("p.json"), "-o", path("plan.json"), "--ratio", "0.5", "--structure", "svd"])
    let usage = try Tool.run("plan", path("p.json"), "-o", "-")
    #expect(usage.status == 64 && usage.messages.contains("Give a budget"))
  }

  @Test func `parts of a profile by other options are refused`() throws {
    try run(["profile", bert, "-o", path("1.json"), "--part", "1/2"])
    try run(["profile", bert, "-o", path("2.json"), "--part", "2/2", "--sites", "4"])
    expectFailure(
      try Tool.run("plan", path("1.json"), path("2.json"), "-o", "-", "--ratio", "0.6"), path("2.json"),
      "with --sites 4", "with --sites 5")
  }

  // MARK: - Statistics

  @Test func `statistics are asked for by every stage that needs them, and must be the same`() throws {
    let stats = try statistics("stats.safetensors", seed: 1, description: "mine")
    let others = try statistics("others.safetensors", seed: 2)
    let sha256 = try FileFingerprint(ofFileAt: stats).sha256
    let options = ["--structure", "svd"]
    let calibration = ["--calibration", stats, "--input-ridge", "0.001"]
    try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.5"] + options + calibration)
    try run(["profile", bert, "-o", path("p.json")] + options + calibration)
    try run(["plan", path("p.json"), "-o", path("plan.json"), "--ratio", "0.5"])

    let convert = ["convert", bert, "-o", path("b.mpo")]
    let yaml = try run(["inspect", path("a.mpo"), "--recipe"]).output
    #expect(yaml.contains("statistics_sha256: \(sha256)\n") && yaml.contains("input_ridge: 0.001\n"))
    try temporary.write(yaml, to: "r.yaml")
    for (source, made) in [
      (["--plan", path("plan.json")], "the plan was made"), (["--like", path("a.mpo")], "the checkpoint was made"),
      (["--recipe", path("r.yaml")], "the recipe was made"),
    ] {
      let wanted = "\(made) with statistics SHA-256 \(sha256) (mine)"
      expectFailure(
        try Tool.Run(convert + source).finish(), source[1], wanted, "pass the same file with --calibration")
      expectFailure(
        try Tool.Run(convert + source + ["--calibration", others]).finish(), source[1], wanted, others,
        "pass the same file with --calibration")
      try run(convert + source + ["--calibration", stats])
      #expect(try isSame("a.mpo", "b.mpo"))
      try FileManager.default.removeItem(atPath: path("b.mpo"))
    }
  }

  @Test func `statistics that nothing asks for are refused`() throws {
    let stats = try statistics("stats.safetensors", seed: 1)
    try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.5"])
    try run(["profile", bert, "-o", path("p.json")])
    try run(["plan", path("p.json"), "-o", path("plan.json"), "--ratio", "0.5"])
    try temporary.write("budget: {ratio: 0.5}", to: "r.yaml")
    for source in [["--plan", path("plan.json")], ["--like", path("a.mpo")], ["--recipe", path("r.yaml")]] {
      let result = try Tool.Run(
        ["convert", bert, "-o", path("b.mpo"), "--calibration", stats] + source
      ).finish()
      expectFailure(result, source[1], "without statistics", "leave out --calibration")
    }
    #expect(try !temporary.names.contains("b.mpo"))
  }

  @Test func `the error of plain SVD is written where its singular values were needed`() throws {
    let stats = try statistics("stats.safetensors", seed: 1)
    for (options, isKnown) in [
      (["--structure", "chain"], false), (["--structure", "svd"], true), (["--structure", "auto"], true),
      (["--structure", "svd", "--calibration", stats], false),
    ] {
      try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.6", "--force"] + options)
      let record = try run(["inspect", path("a.mpo"), "--tensor", key, "--json"]).json
      #expect((record["svd_relative_error"] is Double) == isKnown, "\(options)")
      #expect(record["relative_error"] is Double)
    }
  }
}
