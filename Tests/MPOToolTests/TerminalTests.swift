import Foundation
import TestSupport
import Testing

@Suite struct TerminalTests {
  private let temporary: TemporaryFolder
  private let output: String

  init() throws {
    temporary = try TemporaryFolder()
    output = temporary.path + "/out.mpo"
    let result = try Tool.run("convert", fixtures + "/tiny-bert", "-o", output, "--ratio", "0.6")
    try #require(result.status == 0)
  }

  /// What a command prints on a terminal of this size.
  private func onTerminal(
    _ command: String, columns: Int, lines: Int = 100, variables: String = "PAGER=cat"
  ) throws -> String {
    let line = "unset NO_COLOR COLUMNS; stty cols \(columns) rows \(lines); export TERM=xterm \(variables); \(command)"
    try temporary.write(line, to: "command")
    let result = try Tool.shell(
      "export MPO; script -qec \"sh '\(temporary.path)/command'\" /dev/null </dev/null")
    #expect(result.status == 0, "\(result.output) \(result.messages)")
    return result.output.replacing("\r\n", with: "\n")
  }

  private func lines(_ text: String) -> [String] {
    text.replacing(/\u{1b}\[[0-9;]*[mK]/, with: "").split(separator: "\n").map(String.init)
  }

  @Test(arguments: [50, 80, 120, 400]) func `a table fits the terminal`(columns: Int) throws {
    let text = try onTerminal("\"$MPO\" inspect '\(output)'", columns: columns)
    let table = lines(text).filter {
      $0.contains("weight") && !$0.contains("the same as") && !$0.contains("made")
    }
    #expect(table.count > 5)
    for line in table { #expect(line.count <= columns, "\(line)") }
    let head = try #require(lines(text).first { $0.hasPrefix("matrix ") })
    #expect(head.contains("error") && head.contains("entropies") == (columns == 400))
    #expect(text.contains("columns that do not fit") == (columns < 400))
  }

  @Test func `colour is on terminals only, and not against the reader's will`() throws {
    let command = "\"$MPO\" inspect '\(output)'"
    #expect(try onTerminal(command, columns: 120).unicodeScalars.contains("\u{1b}"))
    #expect(
      try !onTerminal(command, columns: 120, variables: "PAGER=cat NO_COLOR=1").unicodeScalars.contains("\u{1b}"))
    #expect(try !Tool.run("inspect", output).output.unicodeScalars.contains("\u{1b}"))
  }

  @Test func `what is longer than the terminal goes through the pager`() throws {
    let pager = "PAGER='sed s/^/paged:/'"
    let command = "\"$MPO\" inspect '\(output)'"
    #expect(try onTerminal(command, columns: 80, lines: 10, variables: pager).contains("paged:"))
    #expect(try !onTerminal(command, columns: 80, lines: 200, variables: pager).contains("paged:"))
    #expect(
      try !onTerminal(command + " --no-pager", columns: 80, lines: 10, variables: pager).contains(
        "paged:"))
    #expect(
      try onTerminal(command, columns: 80, lines: 10, variables: "PAGER=no-such-pager").contains(
        "trainable"))
  }

  @Test func `lines are chosen and ordered`() throws {
    func names(_ options: String...) throws -> [String] {
      let result = try Tool.Run(["inspect", output] + options).finish()
      #expect(result.status == 0, "\(result.messages)")
      return result.output.split(separator: "\n").filter { $0.contains(" out_in ") }
        .map { String($0.prefix { $0 != " " }) }
    }
    let all = try names()
    let byError = try names("--sort", "error")
    #expect(byError.count == all.count && byError.sorted() == all.sorted())
    let manifest = try Tool.run("inspect", output, "--json").json
    let errors = Dictionary(
      uniqueKeysWithValues: try #require(manifest["tensors"] as? [[String: Any]]).compactMap {
        record in
        (record["relative_error"] as? Double).flatMap { error in
          (record["name"] as? String).map { ($0, error) }
        }
      })
    let values = byError.map { errors[$0] ?? -1 }
    #expect(values == values.sorted(by: >) && values.allSatisfy { $0 >= 0 })
    #expect(try names("--sort", "error", "--top", "2") == Array(byError.prefix(2)))
    let some = try names("*query*", "*key*")
    #expect(some == all.filter { $0.contains("query") || $0.contains("key") } && !some.isEmpty)
    #expect(
      try Tool.run("inspect", output, "*query*").output.contains("of \(all.count) matrices\n"))
    expectFailure(try Tool.run("inspect", output, "nothing*"), "'nothing*' matches no matrix")
    let dense = try Tool.run("inspect", fixtures + "/tiny-bert", "--sort", "size", "--top", "1")
      .output
    #expect(dense.contains("1 of 40 tensors\n"))
  }

  @Test func `a bar has the stage, the matrix and no more than a line`() throws {
    let text = try onTerminal(
      "\"$MPO\" verify '\(output)' --against '\(fixtures)/tiny-bert'", columns: 50)
    let shown = text.split(separator: "\r").filter { $0.contains("verify") && $0.contains("%") }
    #expect(!shown.isEmpty)
    for line in shown { #expect(line.count < 50, "\(line)") }
    #expect(shown.contains { $0.contains("…") })
  }

  @Test func `a spectrum has a line that shows how it falls`() throws {
    let text = try Tool.run(
      "inspect", fixtures + "/tiny-bert", "--tensor", "encoder.layer.0.output.dense.weight",
      "--spectrum"
    ).output
    let line = try #require(
      text.split(separator: "\n").first { $0.hasPrefix("bond 2, 64 singular values: ") })
    let bars = line.split(separator: " ").last ?? ""
    #expect(bars.count == 32 && bars.first == "█" && bars.allSatisfy { "▁▂▃▄▅▆▇█".contains($0) })
  }
}
