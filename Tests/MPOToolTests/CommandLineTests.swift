import Foundation
import TestSupport
import Testing

@Suite struct CommandLineTests {
  @Test(arguments: [
    [], ["convert"], ["profile"], ["plan"], ["inspect"], ["report"], ["restore"], ["verify"],
  ])
  func `help goes to stdout`(command: [String]) throws {
    let result = try Tool.Run(command + ["--help"]).finish()
    #expect(result.status == 0 && result.messages.isEmpty)
    #expect(result.output.contains("USAGE: mpo"))
    for option in command == ["convert"]
      ? ["--ratio", "--max-error", "--bond", "--lossless", "--shape", "--force"] : []
    {
      #expect(result.output.contains(option))
    }
    if command.isEmpty {
      for name in ["convert", "profile", "plan", "inspect", "restore", "verify"] {
        #expect(result.output.contains(name))
      }
    }
  }

  @Test func `the version is one line`() throws {
    let result = try Tool.run("--version")
    #expect(result.status == 0 && result.messages.isEmpty)
    #expect(result.output.split(separator: ".").count == 3 && result.output.hasSuffix("\n"))
  }

  static let badUsage: [[String]] = [
    ["nothing"], ["convert"], ["convert", "m"], ["convert", "m", "-o", "o"], ["inspect"], ["inspect", "m", "--colour"],
    ["convert", "m", "-o", "o", "--ratio", "0"], ["convert", "m", "-o", "o", "--ratio", "-1"],
    ["convert", "m", "-o", "o", "--ratio", "nan"], ["convert", "m", "-o", "o", "--ratio", "half"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--lossless"],
    ["convert", "m", "-o", "o", "--max-error", "0"], ["convert", "m", "-o", "o", "--max-error", "1"],
    ["convert", "m", "-o", "o", "--bond", "0"], ["convert", "m", "-o", "o", "--bond", "1.5"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--min-bond", "0"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--sites", "1"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--sites", "17"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--dtype", "i8"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--dtype", "f8_e4m3"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--jobs", "0"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--progress", "loud"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--criterion", "luck"],
    ["convert", "m", "-o", "o", "--plan", "p", "--ratio", "0.5"],
    ["plan", "-o", "o", "--ratio", "0.5"], ["convert", "m", "--ratio", "0.5"], ["report"],
    ["convert", "m", "-o", "o", "--ratio", "0.5", "--profile", "p"],
    ["convert", "m", "--plan", "p", "--dry-run", "--profile", "p"],
    ["convert", "m", "--plan", "p", "--dry-run", "--part", "1/2"], ["inspect", "m", "--top", "0"],
    ["inspect", "m", "--sort", "luck"], ["inspect", "m", "*", "--json"],
    ["inspect", "m", "--top", "3", "--tensor", "t"],
    ["profile", "m", "-o", "o", "--part", "0/2"], ["profile", "m", "-o", "o", "--part", "3/2"],
    ["profile", "m", "-o", "o", "--part", "1"], ["profile", "m", "-o", "o", "--part", "1/2/3"],
    ["inspect", "m", "--spectrum"], ["restore", "m"], ["verify", "m", "--against"],
  ]

  @Test(arguments: badUsage)
  func `a wrong command line is status 64 with a message on stderr`(arguments: [String]) throws {
    let result = try Tool.Run(arguments).finish()
    #expect(result.status == 64)
    #expect(result.output.isEmpty)
    #expect(result.messages.contains("Error: "))
    #expect(result.messages.contains("Usage: mpo") || result.messages.contains("USAGE: mpo"))
  }

  @Test func `a reader that leaves early causes no message`() throws {
    let result = try Tool.shell(
      "{ $MPO inspect '\(fixtures)/tiny-bert' --json; echo \"status $?\" >&2; } | head -c 1 >/dev/null")
    // Written whole before the reader left, or ended as by SIGPIPE; quietly in either case.
    #expect(["status 0\n", "status 141\n"].contains(result.messages), "\(result.messages)")
    let line = try Tool.shell("$MPO inspect '\(fixtures)/tiny-bert' | head -1")
    #expect(line.status == 0 && line.messages.isEmpty)
    #expect(line.output.contains("tiny-bert") && line.output.filter { $0 == "\n" }.count == 1)
  }

  @Test func `a reader that is gone ends the tool as SIGPIPE would, without words`() throws {
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    close(ends[0])
    defer { close(ends[1]) }
    let result = try Tool.run("inspect", fixtures + "/tiny-bert", output: ends[1])
    #expect(result.status == 141)
    #expect(result.messages.isEmpty)
  }

  @Test func `a full device under stdout is an error`() throws {
    let full = open("/dev/full", O_WRONLY)
    try #require(full >= 0)
    defer { close(full) }
    let result = try Tool.run("inspect", fixtures + "/tiny-bert", output: full)
    #expect(result.status == 1)
    #expect(result.messages.hasPrefix("mpo: standard output: "))
    #expect(result.messages.filter { $0 == "\n" }.count == 1)
  }
}
