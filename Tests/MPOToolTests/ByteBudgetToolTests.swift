import Checkpoints
import Foundation
import MPOCheckpoints
import TestSupport
import Testing

@Suite struct ByteBudgetToolTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private var output: String { temporary.path + "/out.mpo" }

  init() throws { temporary = try TemporaryFolder() }

  private func folder(_ path: String) throws -> [String: Data] {
    try FileManager.default.subpathsOfDirectory(atPath: path).reduce(into: [:]) {
      $0[$1] = FileManager.default.contents(atPath: path + "/" + $1)
    }
  }

  @Test func `a checkpoint of few bytes is verified, inspected, restored in its own dtype and squeezed`() throws {
    let converted = try Tool.run("convert", bert, "-o", output, "--matrix-bytes", "0.3")
    #expect(converted.status == 0, "\(converted.messages)")
    // SVD of as many numbers does not compete with integers.
    #expect(!converted.output.contains("truncated SVD"))
    let dry = try Tool.run("convert", bert, "-o", output, "--matrix-bytes", "0.3", "--dry-run").output
    #expect(dry.contains("at most 0.3 of their bytes for the matrices"))
    #expect(
      try Tool.run("convert", bert, "-o", output, "--bytes", "100KB", "--dry-run").output.contains("at most 100.0 kB"))
    #expect(try Tool.run("verify", output, "--against", bert).status == 0)
    let inspected = try Tool.run("inspect", output)
    #expect(
      inspected.output.contains("matrix bytes 0.3") && inspected.output.contains("bits for each number of the matrices")
    )
    #expect(converted.output.contains("bits for each number of the matrices"))
    let restored = temporary.path + "/restored"
    #expect(try Tool.run("restore", output, "-o", restored).status == 0)
    let (before, after) = (try openDenseCheckpoint(at: bert), try openDenseCheckpoint(at: restored))
    for tensor in before.tensors { #expect(after.tensor(named: tensor.name)?.dtype == tensor.dtype) }
    let squeezed = try Tool.run(
      "squeeze", output, "-o", temporary.path + "/squeezed.mpo", "--evaluate", "echo 1", "--max-drop", "0",
      "--max-steps", "2")
    #expect(squeezed.status == 0, "\(squeezed.messages)")
    #expect(try Tool.run("verify", temporary.path + "/squeezed.mpo").status == 0)
  }

  @Test func `stages, parts and any number of jobs give the same bytes`() throws {
    let (profile, plan) = (temporary.path + "/profile.json", temporary.path + "/plan.json")
    #expect(try Tool.run("profile", bert, "-o", profile).status == 0)
    #expect(try Tool.run("plan", profile, "-o", plan, "--bytes", "0.5").status == 0)
    #expect(try Tool.run("convert", bert, "-o", output, "--bytes", "0.5", "--jobs", "3").status == 0)
    let planned = temporary.path + "/planned.mpo"
    #expect(try Tool.run("convert", bert, "-o", planned, "--plan", plan, "--jobs", "1").status == 0)
    #expect(try folder(output) == folder(planned))
    let parts = (1...2).map { "\(temporary.path)/part\($0).mpo" }
    for (index, part) in parts.enumerated() {
      #expect(try Tool.run("convert", bert, "-o", part, "--part", "\(index + 1)/2", "--plan", plan).status == 0)
    }
    let merged = temporary.path + "/merged.mpo"
    #expect(try Tool.Run(["merge", "-o", merged] + parts).finish().status == 0)
    #expect(try folder(output) == folder(merged))
  }

  @Test func `encodings are said by hand, for all cores or some, and found again in the recipe`() throws {
    let arguments = ["--encode", "*=int4/64", "--encode", "auxiliary=bf16", "--encode", "central:*query*=int8"]
    let run = try Tool.Run(
      ["convert", bert, "-o", output, "--matrix-ratio", "0.6", "--structure", "svd"] + arguments
    ).finish()
    #expect(run.status == 0, "\(run.messages)")
    let found = Set(try MPOCheckpoint(path: output).contents.cores.map(\.encoding.description))
    #expect(
      found.isSuperset(of: ["int4/64", "int8"]) && found.isSubset(of: ["int4/64", "int8", "BF16", "F16", "F32"]))
    let like = temporary.path + "/like.mpo"
    #expect(try Tool.run("convert", bert, "-o", like, "--like", output).status == 0)
    #expect(try folder(output) == folder(like))
    let text = try Tool.run("inspect", output).output
    #expect(text.contains("cores of * int4/64, auxiliary cores of * bf16, central cores of *query* int8"))
    let card = try String(contentsOfFile: output + "/README.md", encoding: .utf8)
    #expect(card.contains("--encode 'central:*query*=int8'"))
  }

  @Test(arguments: [
    (["--bytes", "0.000001"], "can't be reached"), (["--bytes", "5 bananas"], "--bytes"),
    (["--bytes", "-1"], "--bytes"),
    (["--bytes", "0.3", "--encode", "*=int4"], "--encode has no effect with --bytes"),
    (["--bytes", "0.3", "--central", "int8"], "--central has no effect with --bytes"),
    (["--bytes", "0.3", "--ratio", "0.5"], "Give only one of"), (["--ratio", "0.5", "--encode", "*=int7"], "int7"),
    (["--ratio", "0.5", "--encode", "nothing*=int4"], "nothing*"),
    (["--ratio", "0.5", "--encode", "=int4"], "--encode"),
  ])
  func `impossible budgets and encodings are refused with the reason`(options: [String], reason: String) throws {
    let run = try Tool.Run(["convert", bert, "-o", output] + options).finish()
    #expect(run.status != 0 && run.messages.contains(reason), "\(run.messages)")
    #expect(!FileManager.default.fileExists(atPath: output))
  }
}
