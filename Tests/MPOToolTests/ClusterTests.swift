import Foundation
import TestSupport
import Testing

/// What the tool does for the tasks of a cluster.
@Suite struct ClusterTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"

  init() throws { temporary = try TemporaryFolder() }

  private func path(_ name: String) -> String { temporary.path + "/" + name }

  /// Runs a line of shell as a task of a Slurm array.
  private func task(_ id: Int, _ tasks: String, _ line: String) throws -> Tool.Result {
    let words = tasks.split(separator: " ")
    return try Tool.shell(
      "SLURM_ARRAY_TASK_ID=\(id) SLURM_ARRAY_TASK_MIN=\(words[0]) SLURM_ARRAY_TASK_MAX=\(words[1]) "
        + "SLURM_ARRAY_TASK_COUNT=\(words[2]) $MPO \(line)")
  }

  @Test(arguments: [(2, "1 3 3", "slurm", "2/3"), (1, "0 2 3", "slurm", "2/3"), (3, "3 3 1", "slurm/3", "3/3")])
  func `a task of a Slurm array knows its part`(id: Int, tasks: String, part: String, same: String) throws {
    #expect(try task(id, tasks, "profile '\(bert)' -o '\(path("a.json"))' --part \(part)").status == 0)
    #expect(try Tool.run("profile", bert, "-o", path("b.json"), "--part", same).status == 0)
    #expect(FileManager.default.contentsEqual(atPath: path("a.json"), andPath: path("b.json")))
  }

  @Test(arguments: [
    (1, "1 7 4", "slurm", "slurm/N"), (3, "3 5 3", "slurm", "slurm/N"), (5, "1 5 5", "slurm/4", "--array=1-4"),
    (0, "0 3 4", "slurm/4", "--array=1-4"), (1, "1 4 4", "slurm/0", "from 1"), (1, "1 4 4", "slurm/x", "from 1"),
    (1, "1 4 4", "5/4", "K from 1 to N"), (1, "1 4 4", "slurm/4/4", "K from 1 to N"),
  ])
  func `an array that is not all parts is refused`(id: Int, tasks: String, part: String, reason: String) throws {
    let result = try task(id, tasks, "profile '\(bert)' -o '\(path("a.json"))' --part \(part)")
    #expect(result.status == 64 && result.messages.contains(reason), "\(result.messages)")
    #expect(try temporary.names.isEmpty)
  }

  @Test func `outside of an array there is no task`() throws {
    let result = try Tool.shell("unset SLURM_ARRAY_TASK_ID; $MPO profile '\(bert)' -o - --part slurm")
    #expect(result.status == 64 && result.messages.contains("SLURM_ARRAY_TASK_ID is not set"))
  }

  /// What tells a file from every other one.
  private func number(_ path: String) throws -> Int {
    try #require(FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? Int)
  }

  @Test func `what is done is skipped, and what is not the same is made again`() throws {
    let skipped = "exists and has the same recipe; nothing to do"
    let stages: [(name: String, arguments: [String], other: [String])] = [
      (
        "1.json", ["profile", bert, "--ratio", "0.6", "--part", "1/2"],
        ["profile", bert, "--ratio", "0.5", "--part", "1/2"]
      ),
      (
        "2.json", ["profile", bert, "--ratio", "0.6", "--part", "2/2"],
        ["profile", bert, "--ratio", "0.6", "--part", "2/3"]
      ),
      ("plan.json", ["plan", path("1.json"), path("2.json")], ["plan", path("whole.json"), "--ratio", "0.7"]),
      (
        "1.mpo", ["convert", bert, "--plan", path("plan.json"), "--part", "1/2"],
        ["convert", bert, "--plan", path("plan.json"), "--part", "2/2"]
      ),
      (
        "2.mpo", ["convert", bert, "--plan", path("plan.json"), "--part", "2/2"],
        ["convert", bert, "--plan", path("other.json"), "--part", "2/2"]
      ),
      ("out.mpo", ["merge", path("1.mpo"), path("2.mpo")], ["merge", path("1.mpo"), path("2.mpo"), "--hard-links"]),
      ("direct.mpo", ["convert", bert, "--ratio", "0.6"], ["convert", bert, "--ratio", "0.61"]),
    ]
    #expect(try Tool.run("profile", bert, "-o", path("whole.json")).status == 0)
    #expect(try Tool.run("plan", path("whole.json"), "-o", path("other.json"), "--ratio", "0.7").status == 0)
    for stage in stages {
      let command = stage.arguments + ["-o", path(stage.name), "--skip-done"]
      let first = try Tool.Run(command).finish()
      #expect(first.status == 0 && !first.messages.contains(skipped), "\(stage.name): \(first.messages)")
      let made = try number(path(stage.name))
      let second = try Tool.Run(command).finish()
      #expect(second.status == 0 && second.messages.contains(skipped), "\(stage.name): \(second.messages)")
      #expect(try number(path(stage.name)) == made, "\(stage.name)")
      // Of other options.
      let other = try Tool.Run(stage.other + ["-o", path(stage.name), "--skip-done"]).finish()
      #expect(other.status == 0 && !other.messages.contains(skipped), "\(stage.name): \(other.messages)")
      let back = try Tool.Run(command).finish()
      #expect(back.status == 0 && !back.messages.contains(skipped), "\(stage.name): \(back.messages)")
    }
    #expect(try Tool.shell("diff -r '\(path("out.mpo"))' '\(path("direct.mpo"))'").status == 0)
  }

  @Test func `an output that is older than its input, cut, or something else is made again`() throws {
    let model = try temporary.writeModel(["a": (96, 96), "b": (96, 64)], to: "m.safetensors")
    func convert() throws -> String {
      let result = try Tool.run("convert", model, "-o", path("o.mpo"), "--ratio", "0.6", "--skip-done")
      #expect(result.status == 0, "\(result.messages)")
      return result.messages
    }
    #expect(try !convert().contains("nothing to do"))
    #expect(try convert().contains("nothing to do"))
    let shard = path("o.mpo/tensors.safetensors")
    let bytes = try Data(contentsOf: URL(filePath: shard))
    try bytes.dropLast(8).write(to: URL(filePath: shard))
    #expect(try !convert().contains("nothing to do"))
    #expect(try Data(contentsOf: URL(filePath: shard)) == bytes)
    #expect(try Tool.shell("sleep 0.02; touch '\(model)'").status == 0)
    #expect(try !convert().contains("nothing to do"))
    #expect(try convert().contains("nothing to do"))
    // A folder that is not a checkpoint is not replaced.
    try temporary.write("mine", to: "p.mpo/notes.txt")
    expectFailure(
      try Tool.run("convert", model, "-o", path("p.mpo"), "--ratio", "0.6", "--skip-done"), "neither an MPO checkpoint")
  }

  @Test func `a merge can give the files of the parts a second name`() throws {
    #expect(try Tool.run("profile", bert, "-o", path("p.json"), "--ratio", "0.6").status == 0)
    #expect(try Tool.run("plan", path("p.json"), "-o", path("plan.json")).status == 0)
    let parts = (1...3).map { path("\($0).mpo") }
    for (index, part) in parts.enumerated() {
      let made = try Tool.run("convert", bert, "--plan", path("plan.json"), "--part", "\(index + 1)/3", "-o", part)
      #expect(made.status == 0, "\(made.messages)")
    }
    #expect(try Tool.Run(["merge", "--hard-links", "-o", path("linked.mpo")] + parts).finish().status == 0)
    #expect(try Tool.Run(["merge", "-o", path("merged.mpo")] + parts).finish().status == 0)
    for (index, part) in parts.enumerated() {
      let own = try number(part + "/tensors.safetensors")
      let linked = try number(path("linked.mpo/tensors-0000\(index + 1)-of-00003.safetensors"))
      #expect(own == linked)
    }
    #expect(try Tool.run("verify", path("linked.mpo"), "--against", bert).status == 0)
    for name in ["linked", "merged"] {
      #expect(try Tool.run("restore", path(name + ".mpo"), "-o", path(name)).status == 0)
    }
    #expect(try Tool.shell("diff -r '\(path("linked"))' '\(path("merged"))'").status == 0)
  }

  @Test func `a dry run shows what each part takes`() throws {
    let result = try Tool.run("convert", bert, "--ratio", "0.6", "--dry-run", "--parts", "3", "--jobs", "2")
    #expect(result.status == 0, "\(result.messages)")
    for text in ["1/3", "3/3", "--array=1-3 --cpus-per-task=2 --mem=", "memory      about"] {
      #expect(result.output.contains(text), "'\(text)' is not in \(result.output)")
    }
    let more = try Tool.run("convert", bert, "--ratio", "0.6", "--dry-run", "--parts", "3", "--with-statistics")
    #expect(more.status == 0)
    for words in [
      "--ratio 0.6 -o x --parts 3", "--ratio 0.6 --dry-run --parts 0", "--ratio 0.6 --dry-run --skip-done",
      "--ratio 0.6 --dry-run --with-statistics",
    ] {
      #expect(try Tool.shell("$MPO convert '\(bert)' \(words)").status == 64, "\(words)")
    }
  }
}
