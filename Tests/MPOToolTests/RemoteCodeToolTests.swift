import Foundation
import MPOCheckpoints
import TestSupport
import Testing

/// `mpo convert --remote-code`: Python code in the checkpoint. The tests of the Python package run it.
@Suite struct RemoteCodeToolTests {
  private let folder: TemporaryFolder
  private let model = fixtures + "/tiny-bert-sharded"

  init() throws { folder = try TemporaryFolder() }

  private func path(_ name: String) -> String { folder.path + "/" + name }

  private func run(_ arguments: String...) throws -> Tool.Result { try Tool.Run(arguments).finish() }

  @Test func `the code is part of the checkpoint and not of what is restored`() throws {
    let options = ["--ratio", "0.8", "--remote-code"]
    #expect(try Tool.Run(["convert", model, "-o", path("a.mpo")] + options).finish().status == 0)
    let code = try String(contentsOfFile: path("a.mpo/mpo_remote_code.py"), encoding: .utf8)
    #expect(code.contains("\n    \"mpo_checkpoint\": r'''|\"\"\"") && code.hasSuffix("\nimport_package()\n"))
    #expect(code.contains("\n    \"mpo_checkpoint.integrations.transformers\": r'''|"))
    let manifest = try MPOCheckpoint(path: path("a.mpo")).manifest
    #expect(manifest.companions.last?.file == "mpo_remote_code.py")
    #expect(try run("verify", path("a.mpo"), "--against", model).status == 0)
    #expect(try String(contentsOfFile: path("a.mpo/README.md"), encoding: .utf8).contains("trust_remote_code=True"))

    #expect(try run("restore", path("a.mpo"), "-o", path("r")).status == 0)
    #expect(!FileManager.default.fileExists(atPath: path("r/mpo_remote_code.py")))
    #expect(FileManager.default.contentsEqual(atPath: path("r/config.json"), andPath: model + "/config.json"))
    let again = try run(
      "squeeze", path("a.mpo"), "-o", path("s.mpo"), "--evaluate", "echo 1", "--max-drop", "1", "--max-steps", "1")
    #expect(again.status == 0, "\(again.messages)")
    #expect(try MPOCheckpoint(path: path("s.mpo")).manifest.companions.contains { $0.file == "mpo_remote_code.py" })
  }

  @Test func `a file of that name in the model keeps its contents`() throws {
    try FileManager.default.copyItem(atPath: model, toPath: path("m"))
    try folder.write("own", to: "m/mpo_remote_code.py")
    #expect(try run("convert", path("m"), "-o", path("m.mpo"), "--ratio", "0.8", "--remote-code").status == 0)
    #expect(try run("restore", path("m.mpo"), "-o", path("r")).status == 0)
    #expect(try String(contentsOfFile: path("r/mpo_remote_code.py"), encoding: .utf8) == "own")
  }

  @Test func `remote code without effect is refused`() throws {
    let dry = try run("convert", model, "--ratio", "0.8", "--dry-run", "--remote-code")
    #expect(dry.status == 64 && dry.messages.contains("--remote-code has no effect with --dry-run"))
    let file = try folder.writeModel(["a.weight": (64, 64)], to: "m.safetensors")
    let lone = try run("convert", file, "-o", path("a.mpo"), "--ratio", "0.8", "--remote-code")
    #expect(lone.status == 1 && lone.messages.contains("no config.json beside the weights"))
    try FileManager.default.copyItem(atPath: model, toPath: path("own"))
    let own = #"{"model_type": "bert", "auto_map": {"AutoConfig": "own.Config"}}"#
    try own.write(toFile: path("own/config.json"), atomically: true, encoding: .utf8)
    let code = try run("convert", path("own"), "-o", path("a.mpo"), "--ratio", "0.8", "--remote-code")
    #expect(code.status == 1 && code.messages.contains("Python code of its own; leave out --remote-code"))
  }
}
