import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite struct BadInputTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private var output: String { temporary.path + "/out.mpo" }

  init() throws { temporary = try TemporaryFolder() }

  /// Runs every command that reads a model on `path`; each fails with one line that names it.
  private func expectUnreadable(_ path: String, _ parts: String..., at location: SourceLocation = #_sourceLocation)
    throws
  {
    let before = try temporary.names
    let commands = [
      ["convert", path, "-o", output, "--ratio", "0.5"], ["convert", path, "-o", output, "--lossless"],
      ["profile", path, "-o", temporary.path + "/p.json"], ["profile", path, "-o", "-"], ["inspect", path],
      ["inspect", path, "--json"],
    ]
    for command in commands {
      let result = try Tool.Run(command).finish()
      expectFailure(result, path, at: location)
      for part in parts {
        #expect(result.messages.contains(part), "'\(part)' is not in: \(result.messages)", sourceLocation: location)
      }
      #expect(try temporary.names == before, sourceLocation: location)
    }
  }

  @Test func `a missing file`() throws {
    try expectUnreadable(temporary.path + "/none.safetensors", "no such file")
    expectFailure(try Tool.run("verify", temporary.path + "/none.mpo"), "none.mpo", "no such folder")
    expectFailure(try Tool.run("restore", temporary.path + "/none.mpo", "-o", output), "none.mpo", "no such folder")
    expectFailure(
      try Tool.run("plan", temporary.path + "/none.json", "-o", "-", "--ratio", "1"), "none.json", "no such")
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--plan", temporary.path + "/none.json"), "none.json", "no such")
    #expect(try temporary.names == [])
  }

  @Test func `an empty file`() throws {
    try expectUnreadable(temporary.write([], to: "m.safetensors"), "empty")
    let empty = try temporary.write([], to: "p.json")
    expectFailure(try Tool.run("plan", empty, "-o", "-", "--ratio", "1"), empty, "mpo profile")
    expectFailure(try Tool.run("convert", bert, "-o", output, "--plan", empty), empty, "mpo plan")
    expectFailure(try Tool.run("verify", empty), empty, "mpo convert")
    #expect(try temporary.names == ["m.safetensors", "p.json"])
  }

  @Test func `a machine without libhdf5`() throws {
    let file = fixtures + "/hdf5/references.h5"
    let arguments = ["MPO_HDF5_LIBRARY=/none.so", Tool.path, "inspect"]
    let run = try Tool.Run(program: "/usr/bin/env", arguments + [file])
    expectFailure(try run.finish(), file, "/none.so", "MPO_HDF5_LIBRARY")
    // What is no HDF5 file does not need it.
    #expect(try Tool.Run(program: "/usr/bin/env", arguments + [bert]).finish().status == 0)
  }

  @Test func `a folder without a model`() throws {
    let folder = temporary.path + "/folder"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try expectUnreadable(folder, "without a model", "safetensors")
    expectFailure(try Tool.run("verify", folder), folder, "mpo convert")
    expectFailure(try Tool.run("restore", folder, "-o", output), folder, "mpo convert")
  }

  @Test func `a truncated file`() throws {
    let bytes = try Data(contentsOf: URL(filePath: bert + "/model.safetensors"))
    for count in [1, 7, 8, 100, 5000, bytes.count / 2, bytes.count - 1] {
      try expectUnreadable(temporary.write(bytes.prefix(count), to: "m.safetensors"))
    }
  }

  @Test func `a header that lies about sizes`() throws {
    func model(_ header: String, data: Int) throws -> String {
      let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) }
      return try temporary.write(length + Array(header.utf8) + Array(repeating: 0, count: data), to: "m.safetensors")
    }
    func entry(_ shape: String, _ end: String) -> String {
      "{\"w\":{\"dtype\":\"F32\",\"shape\":\(shape),\"data_offsets\":[0,\(end)]}}"
    }
    try expectUnreadable(model(entry("[64,64]", "16384"), data: 100), "'w'")
    try expectUnreadable(model(entry("[64,65]", "16384"), data: 16384), "'w'")
    try expectUnreadable(model(entry("[4294967296,4294967296]", "16384"), data: 16384), "'w'", "overflow")
    try expectUnreadable(model(entry("[64,-64]", "16384"), data: 16384), "'w'", "negative")
    try expectUnreadable(model(entry("[64,64]", "9223372036854775807"), data: 16384), "'w'")
    try expectUnreadable(model(entry("[64,64]", "16384"), data: 16385))
    let long = withUnsafeBytes(of: UInt64(90_000_000).littleEndian) { Array($0) }
    try expectUnreadable(temporary.write(long + Array("{\"w\":{}}".utf8), to: "m.safetensors"), "header")
  }

  @Test func `a ratio that can't be reached gives the smallest that can`() throws {
    for criterion in ["error-per-parameter", "error"] {
      let result = try Tool.run("convert", bert, "-o", output, "--ratio", "0.001", "--criterion", criterion)
      expectFailure(result, "0.001", "can't be reached")
      let words = result.messages.split(separator: " ")
      let place = try #require(words.firstIndex(of: "of"))
      let smallest = String(words[place - 1])
      #expect(try #require(Double(smallest)) > 0.001)
      #expect(try temporary.names == [])
      let reached = try Tool.run("convert", bert, "-o", output, "--ratio", smallest, "--criterion", criterion)
      #expect(reached.status == 0, "\(reached.messages)")
      try FileManager.default.removeItem(atPath: output)
    }
  }

  @Test func `an output that can't be written`() throws {
    let file = try temporary.write("x".utf8, to: "file")
    for (path, reason) in [
      (file + "/out.mpo", "is not a folder"), (temporary.path + "/none/out.mpo", "no folder"),
      ("/proc/out.mpo", "/proc"),
      ("/sys/out.mpo", "/sys"),
    ] {
      expectFailure(try Tool.run("convert", bert, "-o", path, "--ratio", "0.5"), path, reason)
      expectFailure(try Tool.run("profile", bert, "-o", path), path, reason)
    }
    for path in ["", ".", "..", "/", temporary.path + "/.."] {
      let result = try Tool.run("convert", bert, "-o", path, "--ratio", "0.5")
      #expect(result.status == 1 && result.output.isEmpty)
      #expect(result.messages.filter { $0 == "\n" }.count == 1)
    }
    #expect(try temporary.names == ["file"])
  }

  @Test func `a glob that matches nothing`() throws {
    for option in ["--include", "--exclude", "--tie"] {
      expectFailure(
        try Tool.run("convert", bert, "-o", output, "--ratio", "0.5", option, "decoder.*"), option, "'decoder.*'",
        bert, "mpo inspect")
    }
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--ratio", "0.5", "--shape", "x*=8,16x8,16"), "--shape", "'x*'", bert)
    #expect(try temporary.names == [])
  }

  @Test func `factors that do not multiply`() throws {
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--ratio", "0.5", "--shape", "*.query.weight=8,15x8,16"),
      "query.weight", "128 × 128", "8,15x8,16", "multiply")
    for shape in ["*.query.weight", "*.query.weight=8,16", "*.query.weight=8,16x8", "*.query.weight=8,0x8,16"] {
      expectFailure(
        try Tool.run("convert", bert, "-o", output, "--ratio", "0.5", "--shape", shape), "--shape", "'\(shape)'")
    }
    #expect(try temporary.names == [])
  }

  @Test func `tied matrices of different sides`() throws {
    expectFailure(
      try Tool.run("convert", bert, "-o", output, "--ratio", "0.5", "--tie", "*.dense.weight"), "dense.weight", "tie")
    #expect(try temporary.names == [])
  }

  @Test func `a tensor that is not there`() throws {
    expectFailure(try Tool.run("inspect", bert, "--tensor", "none"), bert, "'none'", "mpo inspect")
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.7").status == 0)
    expectFailure(try Tool.run("inspect", output, "--tensor", "none"), output, "'none'", "mpo inspect")
    expectFailure(
      try Tool.run("inspect", bert, "--tensor", "embeddings.LayerNorm.bias", "--spectrum"), "LayerNorm.bias")
  }

  @Test func `an MPO checkpoint where a model is expected, and the other way round`() throws {
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.7").status == 0)
    expectFailure(
      try Tool.run("convert", output, "-o", temporary.path + "/b.mpo", "--ratio", "0.5"), output, "mpo restore")
    expectFailure(try Tool.run("restore", bert, "-o", temporary.path + "/b"), bert, "mpo convert")
    expectFailure(try Tool.run("verify", bert), bert, "mpo convert")
    #expect(try temporary.names == ["out.mpo"])
  }

  @Test func `a plan for another model`() throws {
    let plan = temporary.path + "/plan.json"
    let piped = try Tool.shell("$MPO profile '\(bert)' -o - | $MPO plan - --ratio 0.6 -o '\(plan)'")
    #expect(piped.status == 0)
    expectFailure(
      try Tool.run("convert", fixtures + "/tiny-bert-sharded", "-o", output, "--plan", plan), "tiny-bert-sharded",
      "tensor", "plan")
    #expect(try temporary.names == ["plan.json"])
  }

  @Test func `a damaged MPO checkpoint`() throws {
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.7").status == 0)
    let shard = output + "/tensors.safetensors"
    let bytes = try Data(contentsOf: URL(filePath: shard))
    var changed = bytes
    changed[bytes.count - 100] ^= 1
    try changed.write(to: URL(filePath: shard))
    let verified = try Tool.run("verify", output)
    #expect(verified.status == 3)
    #expect(verified.output.contains(shard) && verified.output.filter { $0 == "\n" }.count == 1)
    #expect(verified.messages.contains(output) && verified.messages.filter { $0 == "\n" }.count == 1)

    try bytes.dropLast().write(to: URL(filePath: shard))
    #expect(try Tool.run("verify", output).status == 3)
    let json = try Tool.run("verify", output, "--json")
    #expect(try json.json["holds"] as? Bool == false)
    #expect(json.status == 3)
    for command in [["restore", output, "-o", temporary.path + "/r"], ["inspect", output]] {
      expectFailure(try Tool.Run(command).finish(), shard, "bytes")
    }
    #expect(try temporary.names == ["out.mpo"])
  }

  @Test func `verification against another model`() throws {
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.7").status == 0)
    let result = try Tool.run("verify", output, "--against", fixtures + "/tiny-bert-sharded", "--json")
    #expect(result.status == 3)
    let object = try result.json
    #expect(object["holds"] as? Bool == false)
    #expect(try #require(object["problems"] as? [String]).count > 10)
    expectFailure(try Tool.run("verify", output, "--against", temporary.path + "/none"), "none", "no such")
  }

  // MARK: - Disk full

  @Test func `a full disk leaves nothing behind`() throws {
    let disk = temporary.path + "/disk"
    try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
    guard mount("tmpfs", disk, "tmpfs", 0, "size=256k") == 0 else {
      print("skipped: a small file system can't be mounted here (\(String(cString: strerror(errno))))")
      return
    }
    defer { umount2(disk, Int32(MNT_DETACH)) }
    let commands = [
      ["convert", bert, "-o", disk + "/out.mpo", "--ratio", "0.9"], ["profile", bert, "-o", disk + "/p.json"],
    ]
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.7").status == 0)
    for command in commands + [
      ["restore", output, "-o", disk + "/r"], ["restore", output, "-o", disk + "/r.safetensors"],
    ] {
      let result = try Tool.Run(command).finish()
      if command[0] == "profile" && result.status == 0 {
        try FileManager.default.removeItem(atPath: command[3])
      } else {
        expectFailure(result, disk, "no space left", "choose another output")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: disk) == [])
    }
  }
}
