import Checkpoints
import Foundation
import MPOCheckpoints
import TestSupport
import Testing

/// Files made to make a reader hang, crash, take all the memory or write over the terminal.
@Suite struct HostileInputTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private var output: String { temporary.path + "/out.mpo" }

  init() throws { temporary = try TemporaryFolder() }

  private func folder(_ name: String) throws -> String {
    let path = temporary.path + "/" + name
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    return path
  }

  // MARK: - What is not a regular file

  @Test func `pipes and devices are refused, and nothing waits for them`() throws {
    let pipe = temporary.path + "/pipe.safetensors"
    #expect(mkfifo(pipe, 0o600) == 0)
    for (path, kind) in [
      (pipe, "a named pipe"), ("/dev/zero", "a character device"), ("/dev/null", "a character device"),
    ] {
      for command in [
        ["inspect", path], ["inspect", path, "--json"], ["profile", path, "-o", "-"],
        ["convert", path, "-o", output, "--ratio", "0.5"],
        ["convert", bert, "-o", output, "--ratio", "0.5", "--calibration", path],
        ["convert", bert, "-o", output, "--plan", path], ["plan", path, "-o", "-", "--ratio", "0.5"],
      ] {
        expectFailure(try Tool.Run(command).finish(), path, kind)
      }
      expectFailure(try Tool.run("verify", path), path)
      expectFailure(try Tool.run("restore", path, "-o", output), path)
    }
    #expect(try temporary.names == ["pipe.safetensors"])
  }

  @Test func `pipes in folders are refused or left alone`() throws {
    let model = try folder("model")
    #expect(mkfifo(model + "/model.safetensors", 0o600) == 0)
    expectFailure(try Tool.run("inspect", model), "a named pipe")
    try FileManager.default.removeItem(atPath: model + "/model.safetensors")
    try FileManager.default.copyItem(atPath: bert + "/model.safetensors", toPath: model + "/model.safetensors")
    #expect(mkfifo(model + "/config.json", 0o600) == 0)
    #expect(try Tool.run("convert", model, "-o", output, "--ratio", "0.7").status == 0)
    for name in ["manifest.json", "tensors.safetensors"] {
      let copy = temporary.path + "/copy.mpo"
      try FileManager.default.copyItem(atPath: output, toPath: copy)
      try FileManager.default.removeItem(atPath: copy + "/" + name)
      #expect(mkfifo(copy + "/" + name, 0o600) == 0)
      for command in [["verify", copy], ["restore", copy, "-o", temporary.path + "/r"]] {
        let result = try Tool.Run(command).finish()
        #expect([1, 3].contains(result.status), "\(result.messages)")
        #expect((result.output + result.messages).contains("a named pipe"), "\(command): \(result.messages)")
      }
      try FileManager.default.removeItem(atPath: copy)
    }
  }

  @Test func `an index leads to regular files of its own folder only`() throws {
    let model = try folder("model")
    try FileManager.default.copyItem(
      atPath: bert + "/model.safetensors", toPath: temporary.path + "/outside.safetensors")
    try FileManager.default.createSymbolicLink(
      atPath: model + "/link.safetensors", withDestinationPath: "../outside.safetensors")
    try FileManager.default.createSymbolicLink(
      atPath: model + "/loop.safetensors", withDestinationPath: "loop.safetensors")
    try FileManager.default.createSymbolicLink(atPath: model + "/zero.safetensors", withDestinationPath: "/dev/zero")
    #expect(mkfifo(model + "/pipe.safetensors", 0o600) == 0)
    for name in [
      "../outside.safetensors", temporary.path + "/outside.safetensors", "link.safetensors", "loop.safetensors",
      "zero.safetensors", "pipe.safetensors", "x/../../outside.safetensors", "", ".", "no\u{1B}[2J\n", "/dev/zero",
    ] {
      let map = try JSONSerialization.data(withJSONObject: ["weight_map": ["w": name]])
      try map.write(to: URL(filePath: model + "/model.safetensors.index.json"))
      expectFailure(try Tool.run("inspect", model), model)
    }
  }

  // MARK: - Names

  @Test func `names of tensors and files can't write over the terminal`() throws {
    let name = "a\n\u{1B}[2J\r\u{9B}31m\u{202E}b\u{2028}\u{7F}\"\\"
    let model = try temporary.writeModel([name: (64, 64), "c": (64, 80)], to: "m\n\u{1B}[1m.safetensors")
    func expectPrintable(_ result: Tool.Result, at location: SourceLocation = #_sourceLocation) {
      for text in [result.output, result.messages] {
        let found = text.unicodeScalars.filter { scalar in
          (scalar.value < 0x20 && scalar != "\n") || (0x7F...0x9F).contains(scalar.value)
            || [0x2028, 0x202E].contains(scalar.value)
        }
        #expect(found.isEmpty, "\(text.debugDescription)", sourceLocation: location)
      }
    }
    let folder = temporary.path + "/o\u{1B}[1m.mpo"
    var results: [Tool.Result] = []
    func run(_ arguments: String..., status: Int32 = 0, at location: SourceLocation = #_sourceLocation) throws {
      let result = try Tool.Run(arguments).finish()
      #expect(result.status == status, "\(result.messages)", sourceLocation: location)
      expectPrintable(result, at: location)
      results.append(result)
    }
    try run("inspect", model)
    #expect(results[0].output.contains("a\\n\\u{1b}[2J\\r\\u{9b}31m\\u{202e}b\\u{2028}\\u{7f}\"\\"))
    try run("inspect", model, "--json")
    let tensors = try #require(results[1].json["tensors"] as? [[String: Any]])
    #expect(tensors.contains { $0["name"] as? String == name })
    try run("inspect", model, "--tensor", name)
    try run("inspect", model, "--tensor", name + "\u{1B}[0m", status: 1)
    try run("convert", model, "-o", folder, "--ratio", "0.9", "--progress", "json")
    try run("convert", model, "-o", folder, "--ratio", "0.9", status: 1)
    try run("inspect", folder)
    try run("inspect", folder, "--json")
    try run("inspect", folder, "--tensor", name)
    try run("verify", folder, "--against", model)
    try run("verify", folder, "--against", bert, status: 3)
    try run("verify", folder, "--against", bert, "--json", status: 3)
    try run("restore", folder, "-o", temporary.path + "/r\u{1B}.safetensors")
    try run("inspect", temporary.path + "/none\n\u{1B}", status: 1)
    let binary = try temporary.write([1, 2, 3], to: "x\u{1B}[7m.h5")
    try run("inspect", binary, status: 1)
  }

  // MARK: - JSON

  @Test func `JSON that is too deep or too long is an error at once`() throws {
    let deep = String(repeating: "[", count: 1_000_000)
    let members = String(repeating: #"{"a":"#, count: 1_000_000)
    for text in [deep, members, #"{"__metadata__":"# + deep, #"{"w":{"dtype":"# + members] {
      let length = withUnsafeBytes(of: UInt64(text.utf8.count).littleEndian) { Array($0) }
      let model = try temporary.write(length + Array(text.utf8), to: "m.safetensors")
      expectFailure(try Tool.run("inspect", model), model)
      let index = try temporary.write(#"{"weight_map":"#.utf8 + Array(text.utf8), to: "m.safetensors.index.json")
      expectFailure(try Tool.run("inspect", index), index)
    }
    let head = #"{"format":"mpo-checkpoint","version":"2.0","manifest_sha256":""#
    let digest = String(repeating: "0", count: 64)
    let checkpoint = try folder("a.mpo")
    for text in [
      head + digest + #"","tensors":"# + deep, head + digest + #"","tensors":"# + members, deep, members,
      head + String(repeating: "0", count: 20_000_000), head + String(repeating: "0", count: 20_000_000) + #""}"#,
      head + digest + #"","tensors":["# + String(repeating: "0,", count: 3_000_000) + "0]}",
      head + digest + #"","tensors":1"# + String(repeating: "0", count: 10_000_000) + "}",
    ] {
      try Data(text.utf8).write(to: URL(filePath: checkpoint + "/manifest.json"))
      for command in [["restore", checkpoint, "-o", temporary.path + "/r"], ["inspect", checkpoint]] {
        expectFailure(try Tool.Run(command).finish(), checkpoint)
      }
    }
    for (format, command) in [
      ("mpo-profile", ["plan", temporary.path + "/s.json", "-o", "-", "--ratio", "0.5"]),
      ("mpo-plan", ["convert", bert, "-o", output, "--plan", temporary.path + "/s.json"]),
    ] {
      for content in [deep, members, #"{"format":"\#(format)","version":1,"plan":"# + deep] {
        try temporary.write(content.utf8, to: "s.json")
        expectFailure(try Tool.Run(command).finish(), "s.json")
      }
    }
  }

  // MARK: - Sizes

  @Test(arguments: ["", " "])
  func `a digest that is in the manifest everywhere takes no memory`(digest: String) throws {
    let checkpoint = try folder("a.mpo")
    let text = #"{"format":"mpo-checkpoint","version":"2.0","manifest_sha256":"\#(digest)"}"#
    let spaces = Array(repeating: UInt8(ascii: " "), count: 40 << 20)
    try Data(Array(text.utf8) + spaces).write(to: URL(filePath: checkpoint + "/manifest.json"))
    let result = try Tool.shell("ulimit -v 1000000; OPENBLAS_NUM_THREADS=1 $MPO inspect '\(checkpoint)'")
    expectFailure(result, checkpoint, "was changed after it was written")
  }

  @Test func `a folder that takes no files is called that`() throws {
    for path in ["/proc/out.mpo", "/sys/out.mpo"] {
      let result = try Tool.run("convert", bert, "-o", path, "--ratio", "0.5")
      expectFailure(result, path)
      #expect(!result.messages.contains("temporary name"), "\(result.messages)")
    }
  }
}
