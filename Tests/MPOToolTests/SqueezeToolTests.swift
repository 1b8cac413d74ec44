import Foundation
import Glibc
import MPOCheckpoints
import TestSupport
import Testing

/// `mpo squeeze` as a process: what signals do to it, and what it exits with.
@Suite struct SqueezeToolTests {
  @Test func `killed at any moment, it goes on to the same result`() throws {
    let place = try SqueezeToolPlace()
    let options = ["--max-drop", "0.3e6", "--step", "8%", "--min-step", "4%", "--progress", "none"]
    let size = "wc -c < {}/tensors.safetensors"
    let whole = try place.start(["squeeze", place.model, "-o", "whole.mpo", "--evaluate", size] + options)
    #expect(whole.wait() == 0)
    let expected = try place.content(of: "whole.mpo")

    var kills = 0
    var status: Int32 = -1
    for attempt in 0..<200 where status != 0 {
      let run = try place.start(
        ["squeeze", place.model, "-o", "out.mpo", "--evaluate", size, "--resume"] + options)
      // Longer and longer, in uneven steps, so that each attempt ends at another point of its work.
      usleep(UInt32(20_000 + attempt * 7_000 + (attempt * 7919) % 13_000))
      if run.isRunning {
        run.signal(SIGKILL)
        kills += 1
      }
      status = run.wait()
    }
    #expect(status == 0 && kills >= 3)
    #expect(try place.content(of: "out.mpo") == expected)
    #expect(
      try place.names.filter { $0.hasPrefix("out.mpo") || $0.hasPrefix(".") } == ["out.mpo", "out.mpo.squeeze.jsonl"])
    let report = try place.start(["verify", "out.mpo", "--against", place.model])
    #expect(report.wait() == 0)
  }

  @Test(arguments: [SIGINT, SIGTERM])
  func `a signal ends the command with all of its children, and the squeeze can go on`(signal: Int32) throws {
    let place = try SqueezeToolPlace()
    let evaluate = """
      if [ ! -e well ] && [ -e {}/../round-1.mpo ]; then sleep 1000 & echo $! > child; wait; fi; \
      wc -c < {}/tensors.safetensors
      """
    let arguments = [
      "squeeze", place.model, "-o", "out.mpo", "--evaluate", evaluate, "--max-drop", "1e9", "--max-steps", "2",
    ]
    let run = try place.start(arguments)
    let child = try place.number(in: "child")
    #expect(kill(child, 0) == 0)
    run.signal(signal)
    #expect(run.wait() == 128 + signal)
    #expect(place.isGone(child))
    try place.write("", to: "well")
    #expect(try place.start(arguments).wait() == 1)
    #expect(try place.start(arguments + ["--resume"]).wait() == 0)
    #expect(try MPOCheckpoint(path: place.path + "/out.mpo").damagedFiles().isEmpty)
  }

  @Test func `a command that runs too long is killed with all of its children`() throws {
    let place = try SqueezeToolPlace()
    let evaluate = "(trap '' TERM; sleep 1000) & echo $! > child; wait"
    let run = try place.start(
      ["squeeze", place.model, "-o", "out.mpo", "--evaluate", evaluate, "--max-drop", "1", "--timeout", "0.2"])
    #expect(run.wait() == 1)
    #expect(place.isGone(try place.number(in: "child")))
    #expect(try place.names.filter { $0.hasPrefix("out") } == [])
  }

  @Test func `commands find the signals as a shell would`() throws {
    let place = try SqueezeToolPlace()
    // 0 when SIGPIPE (bit 12) is not ignored and nothing is blocked.
    let ignored = """
      awk '/SigIgn/ { n += index("13579bdf", substr($2, 13, 1)) } /SigBlk/ { n += ($2 !~ /^0*$/) } END { print n }' \
      /proc/self/status
      """
    let run = try place.start(
      [
        "squeeze", place.model, "-o", "out.mpo", "--evaluate", ignored, "--min-score", "0", "--lower-is-better",
        "--max-steps", "1",
      ])
    #expect(run.wait() == 0)
  }

  @Test func `two runs on one output: the second is refused, the first goes on`() throws {
    let place = try SqueezeToolPlace()
    let arguments = [
      "squeeze", place.model, "-o", "out.mpo", "--evaluate",
      "touch begun; while [ ! -e go ]; do sleep 0.02; done; wc -c < {}/tensors.safetensors", "--max-drop", "1e9",
      "--max-steps", "1",
    ]
    let first = try place.start(arguments)
    try place.wait(for: "begun")
    for more in [[], ["--resume"], ["--force"], ["--journal", "other.jsonl"]] {
      let second = try place.start(arguments + more)
      #expect(second.wait() == 1)
      #expect(second.errors.contains("another squeeze is using it"))
    }
    try place.write("", to: "go")
    #expect(first.wait() == 0)
    #expect(try place.names.contains("other.jsonl") == false)
  }

  @Test(arguments: [
    (["--max-drop", "1"], 64), (["--evaluate", "echo 1"], 64), (["--evaluate", " ", "--max-drop", "1"], 64),
    (["--evaluate", "echo 1", "--max-drop", "-1"], 64),
    (["--evaluate", "echo 1", "--max-drop", "1", "--min-score", "1"], 64),
    (["--evaluate", "echo 1", "--max-drop", "1", "--step", "0%"], 64),
    (["--evaluate", "echo 1", "--max-drop", "1", "--timeout", "-1"], 64),
    (["--evaluate", "echo 1", "--max-drop", "1", "--min-bond", "x="], 64),
    (["--evaluate", "echo 1", "--min-score", "2"], 3), (["--evaluate", "exit 9", "--max-drop", "1"], 1),
    (["--evaluate", "echo 1", "--max-drop", "1", "--tie", "none"], 1),
  ])
  func `a failed squeeze has its message and exit status, and leaves nothing`(options: [String], status: Int) throws {
    let place = try SqueezeToolPlace()
    let run = try place.start(["squeeze", place.model, "-o", "out.mpo"] + options)
    #expect(Int(run.wait()) == status)
    #expect(!run.errors.isEmpty)
    #expect(try place.names.filter { $0.hasPrefix("out") } == [])
  }

  @Test func `a failing command is shown with the end of its stderr`() throws {
    let place = try SqueezeToolPlace()
    let run = try place.start(
      [
        "squeeze", place.model, "-o", "out.mpo", "--evaluate", "seq 100 >&2; echo 'no GPU' >&2; exit 2", "--max-drop",
        "1",
      ])
    #expect(run.wait() == 1)
    #expect(run.errors.contains("| no GPU\n") && run.errors.contains("| 100\n") && !run.errors.contains("| 50\n"))
    #expect(run.errors.contains("round 0: the --evaluate command exited with status 2"))
  }

  @Test func `rounds are lines on stderr or JSON, the result a table or JSON on stdout`() throws {
    let place = try SqueezeToolPlace()
    let arguments = [
      "squeeze", place.model, "--evaluate", "wc -c < {}/tensors.safetensors", "--max-drop", "1e9", "--max-steps", "2",
    ]
    let text = try place.start(arguments + ["-o", "a.mpo"])
    #expect(text.wait() == 0)
    #expect(text.errors.split(separator: "\n").count == 4)
    #expect(text.output.contains("2 rounds are done"))
    let json = try place.start(arguments + ["-o", "b.mpo", "--json", "--progress", "json"])
    #expect(json.wait() == 0)
    struct Report: Decodable {
      let accepted: Int
      let rounds: [Line]
    }
    struct Line: Decodable {
      let round: Int
      let accepted: Bool
      let parameters: Int
      let score: Double
    }
    let report = try JSONDecoder().decode(Report.self, from: Data(json.output.utf8))
    let lines = try json.errors.split(separator: "\n").map { try JSONDecoder().decode(Line.self, from: Data($0.utf8)) }
    #expect(report.accepted == 2 && report.rounds.map(\.parameters) == lines.map(\.parameters))
  }
}

/// A folder to run the tool in, with a real small model at hand; removed when the test is over.
private final class SqueezeToolPlace {
  let path: String
  let model = fixtures + "/tiny-bert"

  init() throws {
    let memory = FileManager.default.isWritableFile(atPath: "/dev/shm")
    path = (memory ? "/dev/shm" : NSTemporaryDirectory()) + "/mpo-squeeze-tool-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The executable is beside the one that runs the tests.
  private static let tool =
    URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    .deletingLastPathComponent().path + "/mpo"

  func start(_ arguments: [String]) throws -> Run { try Run(Self.tool, arguments, in: path) }

  func write(_ text: String, to name: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path + "/" + name))
  }

  var names: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }
  }

  func content(of folder: String) throws -> [String: Data] {
    var result: [String: Data] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: path + "/" + folder) {
      result[name] = FileManager.default.contents(atPath: path + "/" + folder + "/" + name)
    }
    return result
  }

  func wait(for name: String) throws {
    for _ in 0..<1000 where !FileManager.default.fileExists(atPath: path + "/" + name) { usleep(10_000) }
    try #require(FileManager.default.fileExists(atPath: path + "/" + name))
  }

  /// The number in a file that a command is about to write.
  func number(in name: String) throws -> Int32 {
    try wait(for: name)
    for _ in 0..<1000 {
      let text = try String(contentsOfFile: path + "/" + name, encoding: .utf8)
      if text.hasSuffix("\n") { return try #require(Int32(text.dropLast())) }
      usleep(10_000)
    }
    throw CancellationError()
  }

  /// Whether a process has ended; one that nobody takes the status of stays as a zombie.
  func isGone(_ process: pid_t) -> Bool {
    for _ in 0..<300 {
      guard kill(process, 0) == 0, let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
      else { return true }
      if status.contains(") Z ") { return true }
      usleep(10_000)
    }
    return false
  }

  final class Run {
    private let process = Process()
    private let place: String
    private let id = UUID().uuidString

    init(_ tool: String, _ arguments: [String], in place: String) throws {
      self.place = NSTemporaryDirectory()
      process.executableURL = URL(fileURLWithPath: tool)
      process.arguments = arguments
      process.currentDirectoryURL = URL(fileURLWithPath: place)
      for name in ["out", "err"] { _ = FileManager.default.createFile(atPath: path(name), contents: nil) }
      process.standardOutput = FileHandle(forWritingAtPath: path("out"))
      process.standardError = FileHandle(forWritingAtPath: path("err"))
      try process.run()
    }

    deinit {
      for name in ["out", "err"] { try? FileManager.default.removeItem(atPath: path(name)) }
    }

    private func path(_ name: String) -> String { "\(place)/mpo-run-\(id).\(name)" }

    var isRunning: Bool { process.isRunning }
    func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    /// The exit status; that of a shell where a signal ended it.
    func wait() -> Int32 {
      process.waitUntilExit()
      return process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus
    }

    var output: String { (try? String(contentsOfFile: path("out"), encoding: .utf8)) ?? "" }
    var errors: String { (try? String(contentsOfFile: path("err"), encoding: .utf8)) ?? "" }
  }
}
