import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct InterruptionTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  @Test(arguments: [
    (SIGINT, "profile"), (SIGTERM, "profile"), (SIGINT, "convert"), (SIGTERM, "convert"), (SIGHUP, "convert"),
  ])
  func `a signal in the middle of a conversion leaves nothing`(signal: Int32, stage: String) throws {
    let matrices = Dictionary(uniqueKeysWithValues: (0..<8).map { ("w\($0)", (rows: 512, columns: 512 + $0)) })
    let model = try temporary.writeModel(matrices, to: "m.safetensors")
    let run = try Tool.Run(
      ["convert", model, "-o", temporary.path + "/out.mpo", "--lossless", "--jobs", "1", "--progress", "json"])
    // Some of the work is done, and by far not all.
    try run.waitForMessage("\"stage\":\"\(stage)\"")
    #expect(try temporary.names.contains { $0.hasPrefix(".out.mpo.") && $0.hasSuffix(".partial") })
    run.send(signal)
    let result = run.finish()
    #expect(result.status == 128 + signal)
    #expect(result.output.isEmpty)
    #expect(result.messages.split(separator: "\n").allSatisfy { $0.hasPrefix("{\"stage\"") })
    #expect(try temporary.names == ["m.safetensors"])
  }

  @Test func `a signal that is ignored from the start stays ignored, as under nohup`() throws {
    let matrices = Dictionary(uniqueKeysWithValues: (0..<4).map { ("w\($0)", (rows: 512, columns: 512 + $0)) })
    let model = try temporary.writeModel(matrices, to: "m.safetensors")
    let line =
      "trap '' HUP INT; '\(Tool.path)' convert '\(model)' -o '\(temporary.path)/out.mpo' --bond 4 --jobs 1 "
      + "--progress json & while ! ls -A '\(temporary.path)' | grep -q partial && kill -0 $!; do sleep 0.01; done; "
      + "kill -HUP $!; kill -INT $!; wait $!"
    let result = try Tool.shell(line)
    #expect(result.status == 0, "\(result.messages)")
    #expect(try temporary.names == ["m.safetensors", "out.mpo"])
  }

  @Test func `what a killed run left is removed by the next`() throws {
    let matrices = Dictionary(uniqueKeysWithValues: (0..<4).map { ("w\($0)", (rows: 512, columns: 512 + $0)) })
    let model = try temporary.writeModel(matrices, to: "m.safetensors")
    let arguments = ["convert", model, "-o", temporary.path + "/out.mpo", "--bond", "4", "--jobs", "1"]
    let run = try Tool.Run(arguments + ["--progress", "json"])
    try run.waitForMessage("\"stage\":\"profile\"")
    run.send(SIGKILL)
    #expect(run.finish().status == 128 + SIGKILL)
    #expect(try temporary.names.contains { $0.hasSuffix(".partial") })
    #expect(try Tool.Run(arguments).finish().status == 0)
    #expect(try temporary.names == ["m.safetensors", "out.mpo"])
  }
}
