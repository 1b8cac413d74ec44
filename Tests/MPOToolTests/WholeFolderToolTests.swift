import Checkpoints
import Foundation
import MPOCheckpoints
import TestSupport
import Testing

/// What the tool says and does with folders as people have them.
@Suite struct WholeFolderToolTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func path(_ name: String) -> String { folder.path + "/" + name }

  private func run(_ arguments: String...) throws -> Tool.Result {
    let result = try Tool.Run(arguments).finish()
    #expect(result.status == 0, "\(arguments): \(result.messages)")
    return result
  }

  private func write(_ names: [String], to file: String, metadata: CheckpointMetadata = [:]) throws {
    let infos = names.map { TensorInfo(name: $0, dtype: .f32, shape: [64, 64]) }
    try FileManager.default.createDirectory(
      atPath: (path(file) as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    let writer: any DenseCheckpointWriter =
      file.hasSuffix(".h5")
      ? try HDF5Writer(creating: path(file), tensors: infos, metadata: metadata)
      : try SafetensorsWriter(path: path(file), tensors: infos, metadata: metadata)
    for (number, info) in infos.enumerated() {
      try (0..<4096).map { Float(sin(Double($0 * ($0 + number)))) }
        .withUnsafeBytes { try writer.write($0, to: info.name) }
    }
    try writer.finish()
  }

  @Test func `verify lists the errors of names that differ in their bytes only`() throws {
    let names = ["\u{E9}.weight", "e\u{301}.weight", "\"\\\u{1}.weight"]
    try write(names, to: "m.safetensors", metadata: ["\u{E9}": "1", "e\u{301}": "2"])
    _ = try run("convert", path("m.safetensors"), "-o", path("m.mpo"), "--ratio", "0.5")
    let result = try run("verify", path("m.mpo"), "--against", path("m.safetensors"), "--json")
    let bytes = Array(result.output.utf8)
    for name in names.prefix(2) { #expect(!bytes.ranges(of: Array("\"\(name)\" : ".utf8)).isEmpty) }
    #expect(result.output.components(separatedBy: "weight\" : ").count == 4)
    #expect(try result.json["holds"] as? Bool == true && (result.json["problems"] as? [String]) == [])
    for json in [try run("inspect", path("m.safetensors"), "--json"), try run("inspect", path("m.mpo"), "--json")] {
      let object = try json.json
      let source = object["source"] as? [String: Any] ?? object
      #expect((source["metadata"] as? [[String]])?.map(\.count) == [2, 2])
    }
  }

  @Test func `the ratio of the manifest is that of the summary, without training state`() throws {
    try write(["a.weight", "b.weight", "optimizer.exp_avg.a", "optimizer.exp_avg.b"], to: "m.safetensors")
    let summary = try run("convert", path("m.safetensors"), "-o", path("m.mpo"), "--ratio", "0.5").output
    let totals = try #require(try run("inspect", path("m.mpo"), "--json").json["totals"] as? [String: Any])
    let ratio = try #require(totals["ratio"] as? Double)
    #expect(ratio <= 0.5 && ratio > 0.48)
    #expect(summary.contains("(ratio \(String(format: "%.4f", ratio)) of the model"))
    #expect(summary.contains("8,192 numbers of training state"))
    #expect(totals["parameters_training_state"] as? Int == 8192 && totals["parameters_before"] as? Int == 8192)
    let text = try run("inspect", path("m.mpo")).output
    #expect(text.contains("(ratio \(String(format: "%.4f", ratio)))") && text.contains("training    8,192 numbers"))
  }

  @Test func `a squeeze of a Keras file can be restored to one`() throws {
    try write(["dense/kernel", "dense_1/kernel"], to: "k/model.h5", metadata: ["backend": "jax"])
    try folder.write("{}", to: "k/config.json")
    for input in ["k", "k/model.h5"] {
      _ = try run(
        "squeeze", path(input), "-o", path("k.mpo"), "--evaluate", "echo 1", "--max-drop", "1", "--max-steps", "2",
        "--progress", "none", "--force")
      #expect(try MPOCheckpoint(path: path("k.mpo")).manifest.source?.skeleton == "skeleton.h5")
      _ = try run("restore", path("k.mpo"), "-o", path("r.h5"), "--force")
      let restored = try openDenseCheckpoint(at: path("r.h5"))
      #expect(
        restored.metadata == ["backend": "jax"] && restored.tensors.map(\.name) == ["dense/kernel", "dense_1/kernel"])
    }
    _ = try run("squeeze", path("k"), "-o", path("k.mpo"), "--evaluate", "echo 1", "--max-drop", "1", "--force")
    _ = try run("restore", path("k.mpo"), "-o", path("r"))
    #expect(try FileManager.default.contentsOfDirectory(atPath: path("r")).sorted() == ["config.json", "model.h5"])
  }

  @Test func `a squeeze follows links where it is asked to, and says so where it is not`() throws {
    try write(["a.weight"], to: "store/weights.safetensors")
    try folder.write("{}", to: "m/config.json")
    try folder.link("m/model.safetensors", to: path("store/weights.safetensors"))
    let options = [
      "squeeze", path("m"), "-o", path("s.mpo"), "--evaluate", "echo 1", "--max-drop", "1", "--max-steps", "1",
    ]
    let refused = try Tool.Run(options).finish()
    #expect(refused.status == 1 && refused.messages.contains("or pass --follow-links"))
    #expect(try Tool.Run(options + ["--follow-links"]).finish().status == 0)
  }
}
