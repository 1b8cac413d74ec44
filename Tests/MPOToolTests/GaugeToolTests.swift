import Checkpoints
import Foundation
import MPOCheckpoints
import TensorNetworks
import TestSupport
import Testing

/// What holds of every checkpoint, in every gauge.
@Suite struct GaugeToolTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private let base = fixtures + "/malformed/base.mpo"
  private var output: String { temporary.path + "/out.mpo" }

  init() throws { temporary = try TemporaryFolder() }

  private func content(of folder: String) throws -> [String: Data] {
    var result: [String: Data] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: folder) {
      result[name] = FileManager.default.contents(atPath: folder + "/" + name)
    }
    return result
  }

  @Test(arguments: Gauge.allCases)
  func `conversions, parts and squeezes give the same bytes with any number of jobs`(gauge: Gauge) throws {
    let (profile, plan) = (temporary.path + "/profile.json", temporary.path + "/plan.json")
    #expect(try Tool.run("profile", bert, "-o", profile).status == 0)
    let planned = try Tool.run(
      "plan", profile, "-o", plan, "--ratio", "0.6", "--gauge", gauge.rawValue, "--pack")
    #expect(planned.status == 0, "\(planned.messages)")
    let options = ["--plan", plan]
    var converted: Set<[String: Data]> = []
    var squeezed: Set<[String: Data]> = []
    for jobs in ["1", "3"] {
      let path = "\(temporary.path)/\(jobs).mpo"
      #expect(try Tool.Run(["convert", bert, "-o", path, "--jobs", jobs] + options).finish().status == 0)
      converted.insert(try content(of: path))
      let result = try Tool.run(
        "squeeze", path, "-o", "\(temporary.path)/s\(jobs).mpo", "--evaluate", "echo 1", "--max-drop", "0",
        "--max-steps",
        "2", "--jobs", jobs)
      #expect(result.status == 0, "\(result.messages)")
      squeezed.insert(try content(of: "\(temporary.path)/s\(jobs).mpo"))
      #expect(try Tool.run("verify", "\(temporary.path)/s\(jobs).mpo", "--against", bert).status == 0)
      #expect(
        try MPOCheckpoint(path: "\(temporary.path)/s\(jobs).mpo").contents.operators.allSatisfy { $0.gauge == gauge })
    }
    let parts = (1...2).map { "\(temporary.path)/part\($0).mpo" }
    for (index, part) in parts.enumerated() {
      let arguments = ["convert", bert, "-o", part, "--part", "\(index + 1)/2"] + options
      #expect(try Tool.Run(arguments).finish().status == 0)
    }
    #expect(try Tool.Run(["merge", "-o", output] + parts).finish().status == 0)
    converted.insert(try content(of: output))
    #expect(converted.count == 1 && squeezed.count == 1)
    #expect(try Tool.run("verify", output, "--against", bert).status == 0)
    #expect(try Tool.run("restore", output, "-o", temporary.path + "/r.safetensors").status == 0)
  }

  @Test(arguments: Gauge.allCases, [false, true])
  func `a flipped bit anywhere in the tensors is found by verify`(gauge: Gauge, packs: Bool) throws {
    let model = try temporary.writeModel(["a": (96, 80)], to: "m.safetensors")
    let arguments = ["convert", model, "-o", output, "--ratio", "0.6", "--gauge", gauge.rawValue]
    #expect(try Tool.Run(arguments + (packs ? ["--pack"] : [])).finish().status == 0)
    let url = URL(filePath: output + "/tensors.safetensors")
    let content = try Data(contentsOf: url)
    for step in 1...4 {
      var damaged = content
      damaged[content.count * step / 5] ^= 1 << UInt8(step)
      try damaged.write(to: url)
      let verified = try Tool.run("verify", output)
      #expect(verified.status == 3 && verified.output.contains("tensors.safetensors"), "\(verified.output)")
    }
    try content.write(to: url)
    #expect(try Tool.run("verify", output, "--against", model).status == 0)
  }

  @Test(arguments: Gauge.allCases)
  func `a kill in the middle leaves what the next run removes`(gauge: Gauge) throws {
    let matrices = Dictionary(uniqueKeysWithValues: (0..<4).map { ("w\($0)", (rows: 512, columns: 512 + $0)) })
    let model = try temporary.writeModel(matrices, to: "m.safetensors")
    let arguments = ["convert", model, "-o", output, "--bond", "4", "--jobs", "1", "--gauge", gauge.rawValue]
    let run = try Tool.Run(arguments + ["--progress", "json"])
    try run.waitForMessage("\"stage\":\"profile\"")
    run.send(SIGKILL)
    #expect(run.finish().status == 128 + SIGKILL)
    #expect(try Tool.Run(arguments).finish().status == 0)
    #expect(try temporary.names == ["m.safetensors", "out.mpo"])
    #expect(try Tool.run("verify", output, "--against", model).status == 0)
  }

  @Test(arguments: Gauge.allCases, Gauge.allCases)
  func `a trainer may save another gauge than it was given`(gauge: Gauge, saved: Gauge) throws {
    // A squeeze whose only round is rejected saves its input in the gauge that it is asked for.
    let train = """
      '\(Tool.path)' squeeze "$MPO_CHECKPOINT" -o "$MPO_OUTPUT" --gauge \(saved.rawValue) --max-steps 1 --max-drop 0 \
      --evaluate 'wc -c < "$MPO_CHECKPOINT"/tensors.safetensors' > /dev/null
      """
    let result = try Tool.run(
      "squeeze", bert, "-o", output, "--gauge", gauge.rawValue, "--finetune", train, "--evaluate", "echo 1",
      "--max-drop",
      "0", "--max-steps", "2", "--step", "10%", "--json")
    #expect(result.status == 0, "\(result.messages)")
    let checkpoint = try MPOCheckpoint(path: output)
    #expect(!checkpoint.contents.operators.isEmpty)
    #expect(checkpoint.contents.operators.allSatisfy { $0.gauge == gauge })
    let rounds = try #require(try result.json["rounds"] as? [[String: Any]])
    #expect(rounds.last?["parameters"] as? Int == checkpoint.manifest.totals.parametersStored)
    #expect(try Tool.run("verify", output, "--against", bert).status == 0)
  }

  // MARK: - The hand-made checkpoint

  @Test func `shared cores, bases, ranges and sums are verified and restored`() throws {
    #expect(try Tool.run("verify", base).status == 0)
    let path = temporary.path + "/r.safetensors"
    #expect(try Tool.run("restore", base, "-o", path).status == 0)
    let (found, expected) = (
      try SafetensorsFile(path: path), try SafetensorsFile(path: fixtures + "/malformed/base-matrices.safetensors")
    )
    for tensor in expected.tensors {
      let other = try #require(found.tensor(named: tensor.name))
      let isEqual = try expected.withBytes(of: tensor) { bytes in
        try found.withBytes(of: other) { $0.elementsEqual(bytes) }
      }
      #expect(isEqual, "\(tensor.name)")
    }
  }

  @Test(arguments: [nil] + Gauge.allCases.map(Optional.some))
  func `a squeezed checkpoint is verified, operators that share cores stay with a warning`(gauge: Gauge?) throws {
    let result = try Tool.Run(
      [
        "squeeze", base, "-o", output, "--evaluate", "echo 1", "--max-drop", "0", "--max-steps", "3", "--step", "5",
        "--progress", "none",
      ] + (gauge.map { ["--gauge", $0.rawValue] } ?? [])
    ).finish()
    #expect(result.status == 0, "\(result.messages)")
    #expect(result.messages.split(separator: "\n").count == 3, "\(result.messages)")
    for name in ["a.weight", "b.weight", "square.weight"] {
      #expect(result.messages.contains("'\(name)' shares cores"), "\(result.messages)")
    }
    #expect(try Tool.run("verify", output).status == 0)
  }

  @Test func `inspect says what each of its tensors is made of`() throws {
    let text = try Tool.run("inspect", base).output
    for (name, part) in [
      ("a.weight", "in bases"), ("b.weight", "in bases"), ("q.weight", "qk, rows 0 to 3"),
      ("k.weight", "qk, rows 4 to 7"), ("sum.weight", "sum of 2 operators"), ("experts.weight", "2 blocks"),
      ("int8.weight", "I8"), ("spectral.weight", "2,2x2,3"), ("tied.weight", "chain.weight"),
    ] {
      let line = text.split(separator: "\n").first { $0.hasPrefix(name) }
      #expect(line?.contains(part) == true, "\(name): \(line ?? "none")")
    }
    let parts: [(String, [String])] = [
      ("a.weight", ["rows' permutation", "rows' scale", "columns' basis", "central, shared"]),
      ("k.weight", ["block 0", "qk, rows 4 to 7", "gauge       compact"]),
      ("sum.weight", ["sum.weight + sum.residual, columns 1 to 3"]),
      ("experts.weight", ["block 0     sum.weight, rows 0 to 1", "block 1     sum.weight, rows 2 to 3 + "]),
      ("spectral.weight", ["singular values", "spectral"]), ("table", ["dense, I8"]), ("repeated", ["packed from"]),
      ("tied.bias", ["tied to chain.bias"]),
    ]
    for (name, expected) in parts {
      let text = try Tool.run("inspect", base, "--tensor", name)
      #expect(text.status == 0)
      for part in expected { #expect(text.output.contains(part), "'\(part)' is not in: \(text.output)") }
      let object = try Tool.run("inspect", base, "--tensor", name, "--json").json
      #expect(object["name"] as? String == name)
      #expect((object["kind"] as? String == "mpo") == (object["operators"] != nil && object["cores"] != nil))
    }
    #expect(
      (try Tool.run("inspect", base, "--tensor", "sum.weight", "--json").json["operators"] as? [Any])?.count == 2)
  }
}
