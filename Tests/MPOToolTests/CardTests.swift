import Foundation
import TestSupport
import Testing

@Suite struct CardTests {
  private let temporary: TemporaryFolder
  private let output: String

  init() throws {
    temporary = try TemporaryFolder()
    output = temporary.path + "/out.mpo"
  }

  private func card(_ name: String = "README.md") throws -> String {
    try String(contentsOf: URL(filePath: output + "/" + name), encoding: .utf8)
  }

  @Test func `a checkpoint has a card that is not part of it`() throws {
    let model = try temporary.writeModel(
      ["a.0.w`|<b>": (64, 96), "a.1.w`|<b>": (64, 96)], to: "m.safetensors")
    try #require(try Tool.run("convert", model, "-o", output, "--ratio", "0.8").status == 0)
    let card = try card()
    for part in [
      "# Matrix product operators of `m.safetensors`", "ratio | 0.", "SHA-256", "mpo restore",
      "--ratio 0.8", "budget:",
    ] {
      #expect(card.contains(part), "\(part)")
    }
    #expect(card.contains("| `` w`¦<b> `` | 2 |"), "\(card)")
    #expect(try Tool.run("verify", output).status == 0)
    try #require(try Tool.run("restore", output, "-o", temporary.path + "/restored").status == 0)
    #expect(!FileManager.default.fileExists(atPath: temporary.path + "/restored/README.md"))
  }

  @Test func `the card of the source stays, and what the model is based on is kept`() throws {
    let folder = try temporary.folder("model")
    _ = try temporary.writeModel(["a": (64, 96)], to: "model/model.safetensors")
    let own = "---\nlicense: mit\ntags:\n- x\nbase_model:\n- org/one\n- org/two\n---\n# Mine\n"
    try temporary.write(own, to: "model/README.md")
    try #require(try Tool.run("convert", folder, "-o", output, "--ratio", "0.8").status == 0)
    #expect(try card() == own)
    let other = try card("README.mpo.md")
    #expect(
      other.hasPrefix("---\nlicense: mit\nbase_model:\n- org/one\n- org/two\n---\n\n# Matrix"))
    #expect(!other.contains("tags"))
    try #require(try Tool.run("restore", output, "-o", temporary.path + "/restored").status == 0)
    let restored = try FileManager.default.contentsOfDirectory(atPath: temporary.path + "/restored")
    #expect(restored.sorted() == ["README.md", "model.safetensors"])
  }
}
