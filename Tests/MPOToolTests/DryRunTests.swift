import Foundation
import TestSupport
import Testing

@Suite struct DryRunTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"

  init() throws { temporary = try TemporaryFolder() }

  @Test func `what a dry run says is what the conversion does`() throws {
    let profile = temporary.path + "/profile.json"
    try #require(try Tool.run("profile", bert, "-o", profile).status == 0)
    let dry = try Tool.run("convert", bert, "--ratio", "0.6", "--dry-run", "--profile", profile)
    #expect(dry.status == 0 && dry.messages.isEmpty, "\(dry.messages)")
    #expect(try temporary.names == ["profile.json"])
    for part in [
      "dry run, nothing is written", "expected", "largest", "time        about",
      "memory      about",
    ] {
      #expect(dry.output.contains(part), "\(part)")
    }
    let real = try Tool.run("convert", bert, "--ratio", "0.6", "-o", temporary.path + "/out.mpo")
      .output
    func lines(_ text: String, _ names: [String]) -> [Substring] {
      text.split(separator: "\n").filter { line in names.contains { line.hasPrefix("  " + $0) } }
    }
    let exact = ["tensors", "parameters", "bytes"]
    #expect(lines(dry.output, exact) == lines(real, exact) && lines(real, exact).count == 3)
    let errors = [dry.output, real].compactMap { text in
      lines(text, ["error"]).first.flatMap { Double($0.dropFirst(14).prefix(6)) }
    }
    #expect(errors.count == 2 && abs(errors[0] - errors[1]) < 0.02 * errors[1], "\(errors)")
  }

  @Test func `without a profile it says what is known`() throws {
    let dry = try Tool.run(
      "convert", bert, "-o", temporary.path + "/out.mpo", "--ratio", "0.6", "--dry-run")
    #expect(dry.status == 0 && dry.output.contains("not known without a profile"))
    #expect(dry.output.contains("parameters  at most 317,974 are left"))
    #expect(try temporary.names.isEmpty)
  }

  @Test func `a profile that is not of the conversion is refused`() throws {
    let other = try temporary.writeModel(["a": (64, 64)], to: "other.safetensors")
    let profile = temporary.path + "/profile.json"
    try #require(try Tool.run("profile", other, "-o", profile).status == 0)
    expectFailure(
      try Tool.run("convert", bert, "--ratio", "0.6", "--dry-run", "--profile", profile), "'a'",
      "not in the model")
    try #require(
      try Tool.run("profile", bert, "-o", profile, "--force", "--exclude", "*embed*").status == 0)
    expectFailure(
      try Tool.run("convert", bert, "--ratio", "0.6", "--dry-run", "--profile", profile),
      "is not the profile of this conversion", "--exclude")
    expectFailure(
      try Tool.run("convert", bert, "--ratio", "0.6", "--dry-run", "--profile", profile + "x"),
      "profile.jsonx")
  }
}
