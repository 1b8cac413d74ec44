import Checkpoints
import Foundation
import MPOCheckpoints
import TestSupport
import Testing

@Suite struct ConvertTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private var output: String { temporary.path + "/out.mpo" }

  init() throws { temporary = try TemporaryFolder() }

  // MARK: - The whole way

  @Test(arguments: ["tiny-bert", "tiny-bert-sharded", "tiny-bert/model.safetensors"])
  func `convert, inspect, verify and restore go together`(name: String) throws {
    let model = fixtures + "/" + name
    let converted = try Tool.run("convert", model, "-o", output, "--ratio", "0.6")
    #expect(converted.status == 0 && converted.messages.isEmpty, "\(converted.messages)")
    #expect(converted.output.contains(output) && converted.output.contains("ratio 0."))
    #expect(try temporary.names == ["out.mpo"])

    let inspected = try Tool.run("inspect", output)
    #expect(inspected.status == 0 && inspected.messages.isEmpty)
    #expect(inspected.output.contains("encoder.layer.0.output.dense.weight"))
    let manifest = try Tool.run("inspect", output, "--json").json
    #expect(manifest["format"] as? String == "mpo-checkpoint")
    let totals = try #require(manifest["totals"] as? [String: Any])
    let ratio = try #require(totals["ratio"] as? Double)
    #expect(ratio <= 0.6 && ratio > 0.59)
    let recipe = try #require(manifest["conversion"] as? [String: Any])
    #expect(recipe["budget"] as? [String: Double] == ["ratio": 0.6] && recipe["structure"] as? String == "auto")

    let verified = try Tool.run("verify", output, "--against", model)
    #expect(verified.status == 0 && verified.messages.isEmpty, "\(verified.output)")
    #expect(verified.output.contains("verified: "))

    let source = try openDenseCheckpoint(at: model)
    for name in ["restored", "restored.safetensors"] {
      let path = temporary.path + "/" + name
      let restored = try Tool.run("restore", output, "-o", path)
      #expect(restored.status == 0 && restored.messages.isEmpty)
      #expect(restored.output.contains(path))
      let result = try openDenseCheckpoint(at: path)
      #expect(result.tensors == source.tensors && result.metadata == source.metadata)
    }
  }

  private func structure(_ arguments: String...) throws -> String? {
    let result = try Tool.Run(["convert", bert, "-o", output, "--force"] + arguments).finish()
    #expect(result.status == 0, "\(result.messages)")
    return try MPOCheckpoint(path: output).manifest.conversion?.structure.rawValue
  }

  @Test func `sites, shapes, bonds and published steps ask for chains`() throws {
    #expect(try structure("--ratio", "0.6") == "auto")
    #expect(try structure("--ratio", "0.6", "--sites", "5") == "chain")
    #expect(try structure("--ratio", "0.6", "--sites", "3", "--structure", "auto") == "auto")
    #expect(try structure("--ratio", "0.6", "--shape", "*.0.output.dense.weight=8,4,4x4,8,8") == "chain")
    #expect(try structure("--bond", "6") == "chain")
    #expect(try structure("--bond", "6", "--structure", "svd") == "svd")
    #expect(try structure("--ratio", "0.6", "--criterion", "error") == "chain")
    #expect(try structure("--lossless") == "auto")
  }

  @Test func `a plan with a bond from a profile without a structure is that of one command`() throws {
    let (profile, plan) = (temporary.path + "/p.json", temporary.path + "/plan.json")
    #expect(try Tool.run("profile", bert, "-o", profile).status == 0)
    #expect(try Tool.run("plan", profile, "-o", plan, "--bond", "6").status == 0)
    #expect(try Tool.run("convert", bert, "-o", output, "--plan", plan).status == 0)
    let one = temporary.path + "/one.mpo"
    #expect(try Tool.run("convert", bert, "-o", one, "--bond", "6").status == 0)
    for name in ["manifest.json", "tensors.safetensors"] {
      #expect(FileManager.default.contentsEqual(atPath: output + "/" + name, andPath: one + "/" + name))
    }
  }

  @Test func `a matrix ratio is that of the matrices alone, and the summary has both`() throws {
    let result = try Tool.run("convert", bert, "-o", output, "--matrix-ratio", "0.5", "--include", "encoder.*.weight")
    #expect(result.status == 0, "\(result.messages)")
    let totals = try MPOCheckpoint(path: output).manifest.totals
    #expect(totals.ratio > 0.505)
    for part in [" of the checkpoint, 0.49", " of the matrices)"] { #expect(result.output.contains(part)) }
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--force", "--matrix-ratio", "0.001"), "matrix ratio 0.001",
      "the matrices still have 0.0")
  }

  @Test func `a ratio out of reach names the largest tensors that stay dense, and why`() throws {
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--ratio", "0.01", "--exclude", "encoder.layer.*"),
      "can't be reached",
      "stay dense: 'encoder.layer.0.intermediate.dense.weight' (32768 ", "numbers, excluded)")
  }

  @Test func `a conversion without statistics says what its errors are of`() throws {
    let note = "errors of weights are not errors of the model"
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.6").output.contains(note))
    #expect(try !Tool.run("convert", bert, "-o", output, "--force", "--lossless").output.contains(note))
  }

  @Test func `chains in most matrices of a language model are warned of`() throws {
    _ = try temporary.folder("lm")
    try temporary.writeModel(["a": (64, 64), "b": (64, 64)], to: "lm/model.safetensors")
    try temporary.write(#"{"architectures": ["LlamaForCausalLM"]}"#, to: "lm/config.json")
    for (options, isWarned) in [
      (["--ratio", "0.6", "--sites", "5"], true), (["--ratio", "0.6", "--structure", "svd"], false),
      (["--lossless", "--sites", "5"], false), (["--ratio", "0.9", "--sites", "5", "--include", "a"], false),
    ] {
      let result = try Tool.Run(["convert", temporary.path + "/lm", "-o", output, "--force"] + options).finish()
      #expect(result.status == 0, "\(result.messages)")
      #expect(result.messages.contains("16,029") == isWarned, "\(options): \(result.messages)")
    }
    let bert = try Tool.run("convert", bert, "-o", output, "--force", "--ratio", "0.6", "--sites", "5")
    #expect(bert.messages.isEmpty)
  }

  @Test func `profile, plan and convert through pipes give what one command gives`() throws {
    let model = fixtures + "/tiny-bert-sharded"
    let one = temporary.path + "/one.mpo"
    #expect(try Tool.run("convert", model, "-o", one, "--ratio", "0.6").status == 0)
    let piped = try Tool.shell(
      "$MPO profile '\(model)' -o - | $MPO plan - --ratio 0.6 -o - | tee '\(temporary.path)/plan.json'")
    #expect(piped.status == 0)
    #expect(piped.messages.contains("matrices") && piped.messages.filter { $0 == "\n" }.count == 1)
    #expect(try piped.json["format"] as? String == "mpo-plan")
    let converted = try Tool.run("convert", model, "-o", output, "--plan", temporary.path + "/plan.json")
    #expect(converted.status == 0, "\(converted.messages)")
    let shards = [one, output].map { $0 + "/tensors.safetensors" }
    #expect(FileManager.default.contentsEqual(atPath: shards[0], andPath: shards[1]))
  }

  @Test func `parts of a profile make the same plan as the whole`() throws {
    let whole = temporary.path + "/whole.json"
    #expect(try Tool.run("profile", bert, "-o", whole).status == 0)
    var parts: [String] = []
    for part in 1...3 {
      parts.append(temporary.path + "/\(part).json")
      #expect(try Tool.run("profile", bert, "-o", parts[part - 1], "--part", "\(part)/3").status == 0)
    }
    let expected = try Tool.run("plan", whole, "-o", "-", "--ratio", "0.7")
    let found = try Tool.Run(["plan"] + parts.reversed() + ["-o", "-", "--ratio", "0.7"]).finish()
    #expect(expected.status == 0 && found.status == 0)
    #expect(found.output == expected.output && !found.output.isEmpty)
    expectFailure(try Tool.run("plan", parts[0], parts[2], "-o", "-", "--ratio", "0.7"), parts[0], "part 2")
  }

  @Test func `progress is a line a tensor when asked for, and nothing otherwise`() throws {
    let model = fixtures + "/tiny-bert-sharded"
    let result = try Tool.run("convert", model, "-o", output, "--bond", "8", "--progress", "json")
    #expect(result.status == 0)
    let lines = try result.messages.split(separator: "\n").map {
      try #require(JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
    #expect(lines.allSatisfy { Set($0.keys) == ["stage", "completed", "total", "tensor"] })
    #expect(Set(lines.compactMap { $0["stage"] as? String }) == ["profile", "convert"])
    #expect(lines.last?["completed"] as? Int == lines.last?["total"] as? Int)
    #expect(try Tool.run("verify", output, "--progress", "none").messages.isEmpty)
  }

  @Test func `matrices with NaN stay dense with a warning on stderr`() throws {
    let path = try temporary.writeModel(["a": (64, 64), "b": (64, 64)], to: "m.safetensors")
    var bytes = try Data(contentsOf: URL(filePath: path))
    bytes.replaceSubrange(bytes.count - 4..<bytes.count, with: [0, 0, 0xC0, 0x7F])
    try bytes.write(to: URL(filePath: path))
    let result = try Tool.run("convert", path, "-o", output, "--ratio", "0.8")
    #expect(result.status == 0)
    #expect(result.messages == "mpo: warning: tensor 'b' has NaN, infinite or huge elements; it stays dense\n")
    #expect(try MPOCheckpoint(path: output).record(named: "b")?.isDense == true)
  }

  @Test func `the options choose matrices, factors, bonds and types`() throws {
    let result = try Tool.run(
      "convert", bert, "-o", output, "--bond", "6", "--include", "*.dense.weight", "--exclude", "*.1.*", "--shape",
      "*.output.dense.weight=8,16x8,16", "--shape", "*.0.output.dense.weight=8,4,4x4,8,8", "--sites", "3", "--dtype",
      "bf16", "--jobs", "1")
    #expect(result.status == 0, "\(result.messages)")
    let contents = try MPOCheckpoint(path: output).contents
    let found = Dictionary(uniqueKeysWithValues: contents.operators.map { ($0.name, $0) })
    let layer = "encoder.layer.0."
    #expect(
      Set(found.keys) == [
        layer + "attention.output.dense.weight", layer + "intermediate.dense.weight", layer + "output.dense.weight",
      ])
    #expect(found[layer + "attention.output.dense.weight"]?.shape.description == "8,16x8,16")
    #expect(found[layer + "output.dense.weight"]?.shape.description == "8,4,4x4,8,8")
    #expect(found[layer + "intermediate.dense.weight"]?.shape.siteCount == 3)
    #expect(found.values.allSatisfy { $0.bonds.allSatisfy { $0 <= 6 } })
    #expect(contents.cores.allSatisfy { $0.encoding.valueDType == .bf16 })
  }

  @Test(arguments: ["svd", "chain"])
  func `aligned bonds are multiples where they are large enough, and the manifest says so`(structure: String) throws {
    let model = try temporary.writeModel(["a": (128, 96), "b": (160, 128), "c": (64, 192)], to: "m.safetensors")
    let options = ["--ratio", "0.5", "--structure", structure]
    for alignment in [8, 16] {
      let path = output + "\(alignment)"
      let result = try Tool.Run(["convert", model, "-o", path, "--align", "\(alignment)"] + options).finish()
      #expect(result.status == 0, "\(result.messages)")
      let manifest = try MPOCheckpoint(path: path).manifest
      #expect(manifest.contents.operators.count == 3 && manifest.conversion?.alignment == .multiples(of: alignment))
      #expect(manifest.totals.ratio <= 0.5 && manifest.totals.ratio > 0.3)
      #expect(manifest.contents.operators.contains { $0.bonds.contains { $0 > alignment } })
      for record in manifest.contents.operators {
        for (bond, full) in zip(record.bonds, record.shape.fullBonds) {
          #expect(bond.isMultiple(of: alignment) || bond == full || bond < alignment, "\(record.name): \(record.bonds)")
        }
      }
      #expect(try Tool.run("convert", model, "-o", path + "-again", "--like", path).status == 0)
      #expect(try MPOCheckpoint(path: path + "-again").contents == manifest.contents)
    }
    #expect(try Tool.Run(["convert", model, "-o", output] + options).finish().status == 0)
    let free = try MPOCheckpoint(path: output).contents.operators.flatMap(\.bonds)
    #expect(!free.allSatisfy { $0.isMultiple(of: 8) }, "without the option bonds are what is best")
    for other in [["--bond", "8"], ["--lossless"]] {
      let refused = try Tool.Run(["convert", model, "-o", output, "--align", "8"] + other).finish()
      #expect(refused.status == 64 && refused.messages.contains("--align"), "\(refused.messages)")
    }
  }

  @Test func `large matrices of low rank are aligned by default, as the manifest says`() throws {
    let model = try temporary.writeModel(["a": (256, 300), "b": (320, 256), "c": (128, 96)], to: "m.safetensors")
    func converted(_ name: String, _ options: String...) throws -> MPOCheckpoint {
      let path = temporary.path + "/" + name
      let result = try Tool.Run(["convert", model, "-o", path] + options).finish()
      #expect(result.status == 0, "\(result.messages)")
      return try MPOCheckpoint(path: path)
    }
    let options = ["--ratio", "0.6", "--structure", "svd"]
    let aligned = try converted("aligned.mpo", options[0], options[1], options[2], options[3])
    let manifest = aligned.manifest
    #expect(manifest.conversion?.alignment == .auto && manifest.totals.ratio <= 0.6 && manifest.totals.ratio > 0.55)
    let large = manifest.contents.operators.filter { $0.name != "c" }
    #expect(large.count == 2 && large.allSatisfy { $0.bonds[0].isMultiple(of: 8) }, "\(large.map(\.bonds))")
    #expect(try converted("again.mpo", "--like", aligned.path).contents == aligned.contents)

    let free = try converted("free.mpo", options[0], options[1], options[2], options[3], "--align", "1").manifest
    #expect(free.conversion?.alignment == .multiples(of: 1))
    #expect(!free.contents.operators.allSatisfy { $0.name == "c" || $0.bonds[0].isMultiple(of: 8) })

    let refused = try Tool.Run(
      ["convert", model, "-o", output, "--ratio", "0.6", "--structure", "chain", "--align", "1"]
    ).finish()
    #expect(refused.status == 64 && refused.messages.contains("--align 1 has no effect"), "\(refused.messages)")
  }

  @Test func `a maximum error that rounding exceeds is status 3 and leaves nothing`() throws {
    let model = try temporary.writeModel(["a": (64, 64), "b": (96, 64)], isRankOne: true, to: "m.safetensors")
    let command = [
      "convert", model, "-o", output, "--max-error", "0.0001", "--shape", "a=64,1x1,64", "--shape", "b=96,1x1,64",
    ]
    expectFailure(
      try Tool.Run(command + ["--central", "int8"]).finish(), "'a'", "'b'", "above 0.0001", "--central", status: 3)
    #expect(try temporary.names == ["m.safetensors"])
    #expect(try Tool.Run(command).finish().status == 0)
  }

  // MARK: - Outputs that are there

  @Test func `nothing is replaced without --force`() throws {
    let plan = temporary.path + "/plan.json"
    let profile = temporary.path + "/profile.json"
    let file = temporary.path + "/file.safetensors"
    let model = fixtures + "/tiny-bert-sharded"
    let commands = [
      ["convert", model, "-o", output, "--ratio", "0.7"], ["profile", model, "-o", profile],
      ["plan", profile, "-o", plan, "--ratio", "0.7"], ["restore", output, "-o", file],
      ["restore", output, "-o", temporary.path + "/folder"],
    ]
    for command in commands { #expect(try Tool.Run(command).finish().status == 0) }
    let names = try temporary.names
    #expect(names == ["file.safetensors", "folder", "out.mpo", "plan.json", "profile.json"])
    for command in commands {
      let path = command[3]
      let before = try inode(path)
      expectFailure(try Tool.Run(command).finish(), path, "exists already", "--force")
      #expect(try inode(path) == before)
      let forced = try Tool.Run(command + ["--force"]).finish()
      #expect(forced.status == 0, "\(forced.messages)")
      #expect(try inode(path) != before)
      #expect(try temporary.names == names)
    }
    #expect(try Tool.run("verify", output).status == 0)
  }

  @Test func `a folder of other things is not replaced, even with --force`() throws {
    try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
    try temporary.write("mine".utf8, to: "out.mpo/letter.txt")
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--ratio", "0.7", "--force"), output, "can't be replaced")
    #expect(try FileManager.default.contentsOfDirectory(atPath: output) == ["letter.txt"])
    #expect(try temporary.names == ["out.mpo"])
  }

  @Test func `an input that was read while it is replaced is whole to the end`() throws {
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.7").status == 0)
    let path = temporary.path + "/m.safetensors"
    #expect(try Tool.run("restore", output, "-o", path).status == 0)
    #expect(try Tool.run("convert", path, "-o", output, "--ratio", "0.6", "--force").status == 0)
    #expect(try Tool.run("verify", output, "--against", path).status == 0)
  }

  private func inode(_ path: String) throws -> UInt64 {
    try #require(FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? UInt64)
  }
}
