import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite struct ReportToolTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private let output: String
  private let profile: String
  private let page: String

  init() throws {
    temporary = try TemporaryFolder()
    output = temporary.path + "/out.mpo"
    profile = temporary.path + "/profile.json"
    page = temporary.path + "/report.html"
    try #require(try Tool.run("convert", bert, "-o", output, "--ratio", "0.6").status == 0)
    try #require(try Tool.run("profile", bert, "-o", profile).status == 0)
  }

  private func text(_ path: String) throws -> String {
    try String(contentsOf: URL(filePath: path), encoding: .utf8)
  }

  @Test func `a checkpoint, with and without its profile`() throws {
    let alone = try Tool.run("report", output, "-o", page)
    #expect(alone.status == 0 && alone.output.isEmpty && alone.messages.contains("report.html: "))
    let plain = try text(page)
    #expect(
      plain.contains("out.mpo: MPO checkpoint")
        && plain.contains(
          "For spectra and curves of the error give 'mpo report' the profile".replacing("'", with: "&#39;"))
    )
    #expect(!plain.contains("id=\"budget\""))
    let whole = try Tool.run("report", output, profile, "-o", "-")
    #expect(whole.status == 0 && whole.messages.isEmpty)
    #expect(whole.output.contains("id=\"budget\"") && whole.output.contains("picture spectrum"))
    let manifest = try Tool.run("inspect", output, "--json").json
    for record in try #require(manifest["tensors"] as? [[String: Any]])
    where record["kind"] as? String == "mpo" {
      let name = try #require(record["name"] as? String)
      let error = try #require(record["relative_error"] as? Double)
      #expect(whole.output.contains("<th scope=row>\(name)</th>"))
      #expect(whole.output.contains(String(format: error < 1e-3 ? "%.1e" : "%.4f", error)))
    }
  }

  @Test func `a plan, a profile alone, and a dense checkpoint beside them`() throws {
    let plan = temporary.path + "/plan.json"
    try #require(try Tool.run("plan", profile, "-o", plan, "--ratio", "0.6").status == 0)
    #expect(
      try Tool.run("report", plan, "-o", "-").output.contains(
        "plan.json is a plan: its errors are expected"))
    #expect(try Tool.run("report", profile, "-o", "-").output.contains("profile.json: profile"))
    let all = try Tool.run("report", bert, output, plan, profile, "-o", "-")
    #expect(all.status == 0, "\(all.messages)")
    for part in ["A: tiny-bert", "B: out.mpo", "C: plan.json"] {
      #expect(all.output.contains(part), "\(part)")
    }
  }

  @Test
  func
    `a report is not made of different models, nor over another file or where nothing can be written`()
    throws
  {
    let other = try temporary.writeModel(["a": (64, 64)], to: "other.safetensors")
    let otherProfile = temporary.path + "/other.json"
    try #require(try Tool.run("profile", other, "-o", otherProfile).status == 0)
    expectFailure(
      try Tool.run("report", output, otherProfile, "-o", page),
      "other.json: is of another model than", "no matrix 'a'")
    expectFailure(
      try Tool.run("report", output, other, "-o", page), "is of another model than", "no tensor 'a'"
    )
    #expect(!FileManager.default.fileExists(atPath: page))
    expectFailure(
      try Tool.run("report", output, "-o", temporary.path + "/missing/r.html"), "there is no folder"
    )
    try temporary.write("mine", to: "report.html")
    expectFailure(try Tool.run("report", output, "-o", page), "pass --force")
    #expect(try text(page) == "mine")
    #expect(try Tool.run("report", output, "-o", page, "--force").status == 0)
    expectFailure(
      try Tool.run("report", output, "-o", page, "--force", "--matrix", "nothing*"),
      "'nothing*' matches no matrix")
    expectFailure(
      try Tool.run("report", output, profile, "-o", profile, "--force"), "contains the input")
  }

  @Test func `markup in names and folders is text`() throws {
    let name = "<script>alert('1')</script>"
    let model = try temporary.writeModel([name: (64, 96), "a\"b": (64, 64)], to: "m.safetensors")
    let folder = temporary.path + "/<b>out.mpo"
    try #require(try Tool.run("convert", model, "-o", folder, "--ratio", "0.9").status == 0)
    let html = try Tool.run("report", folder, "-o", "-").output
    #expect(!html.contains("<script") && !html.contains("<b>out"))
    #expect(html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"))
  }

  @Test(arguments: [
    ["--ratio", "0.8"], ["--bond", "8", "--gauge", "canonical", "--dtype", "bf16", "--pack"],
    ["--ratio", "0.8", "--structure", "svd", "--sites", "4"],
    [
      "--max-error", "0.4", "--sites", "3", "--exclude", "*embed*", "--min-bond", "2", "--central",
      "int8",
    ],
    [
      "--matrix-ratio", "0.7", "--link", "encoder.layer.*.attention.self.{query,key}.weight",
      "--include", "*self*",
    ],
    [
      "--ratio", "0.9", "--criterion", "error", "--tie", "*query*", "--shape",
      "*query.weight=4,4,8x4,4,8",
    ],
    [
      "--ratio", "0.9", "--share-central", "encoder.layer.*.attention.self.query.weight=1",
      "--include", "*self*",
    ],
    ["--ratio", "0.8", "--share-central", "encoder.layer.*.attention.self.query.weight=1", "--residual-rank", "4"],
    ["--ratio", "0.8", "--align", "8"], ["--ratio", "0.8", "--align", "1"],
    ["--lossless"],
  ]) func `the command in a report makes the same recipe`(options: [String]) throws {
    let first = temporary.path + "/first.mpo"
    let made = try Tool.Run(["convert", bert, "-o", first] + options).finish()
    try #require(made.status == 0, "\(made.messages)")
    let html = try Tool.run("report", first, "-o", "-").output
    let start = try #require(html.range(of: "<code class=\"command\">"))
    let end = try #require(html.range(of: "</code>", range: start.upperBound..<html.endIndex))
    var command = String(html[start.upperBound..<end.lowerBound])
    for (text, escape) in [
      ("'", "&#39;"), ("\"", "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("&", "&amp;"),
    ] {
      command = command.replacing(escape, with: text)
    }
    let second = temporary.path + "/second.mpo"
    command = command.replacing(
      "mpo convert MODEL -o OUT.mpo", with: "\"$MPO\" convert '\(bert)' -o '\(second)'")
    let again = try Tool.shell(command)
    #expect(again.status == 0, "\(command): \(again.messages)")
    #expect(
      try Tool.run("inspect", second, "--recipe").output
        == Tool.run("inspect", first, "--recipe").output)
  }
}
