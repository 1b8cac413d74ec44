import Checkpoints
import Files
import Foundation
import MPOCheckpoints
import Squeezing
import TestSupport
import Testing

@testable import Conversion

@Suite struct VerifierTests {
  private let temporary: TemporaryFolder
  private let source: any DenseCheckpoint
  private let folder: String

  init() throws {
    temporary = try TemporaryFolder()
    source = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    folder = try temporary.folder("a.mpo")
    _ = try converted(source, .ratio(0.7), to: folder)
  }

  private func report(against original: (any DenseCheckpoint)? = nil) throws -> Verifier.Findings {
    try Verifier(jobs: 2).verify(MPOCheckpoint(path: folder), against: original)
  }

  @Test func `an unchanged checkpoint is verified, with and without its source`() throws {
    let alone = try report()
    #expect(alone.problems.isEmpty && alone.relativeErrors.isEmpty)
    #expect(alone.tensorCount == source.tensors.count)
    #expect(alone.fileCount == 2 + source.companions.count)
    let compared = try report(against: source)
    #expect(compared.problems.isEmpty)
    let records = try MPOCheckpoint(path: folder).manifest.contents.tensors
    for (name, error) in compared.relativeErrors {
      let record = records.first { $0.name == name }
      let recorded = record?.blocks?.relativeError
      if let recorded { #expect(abs(recorded - error) <= 1e-9) }
    }
    #expect(compared.relativeErrors.count >= records.count { $0.blocks != nil })
  }

  @Test func `a damaged file is a problem of its own`() throws {
    let path = folder + "/config.json"
    var bytes = try Data(contentsOf: URL(filePath: path))
    bytes[3] ^= 0x20
    try bytes.write(to: URL(filePath: path))
    let problems = try report(against: source).problems
    #expect(problems.count == 1)
    #expect(try #require(problems.first).contains("config.json"))
  }

  @Test func `what can't be opened is invalid, what is none at all an error`() throws {
    guard case .valid = try Verifier.open(folder) else {
      Issue.record("it is valid")
      return
    }
    try FileManager.default.removeItem(atPath: folder + "/config.json")
    guard case .invalid(let reason) = try Verifier.open(folder) else {
      Issue.record("a file is missing")
      return
    }
    #expect(reason.contains("config.json") && reason.contains("missing"))
    expectFailure("none") { _ = try Verifier.open(temporary.path + "/none") }
  }

  @Test func `another source is found, tensor by tensor and file by file`() throws {
    let problems = try report(against: openDenseCheckpoint(at: fixtures + "/tiny-bert")).problems
    #expect(problems.contains { $0.contains("model.safetensors") && $0.contains("is not the file from which") })
    #expect(problems.contains { $0.contains("'embeddings.word_embeddings.weight'") && $0.contains("[997, 128]") })
    #expect(
      problems.contains { $0.contains("'encoder.layer.1.output.dense.weight'") && $0.contains("not in the checkpoint") }
    )
    #expect(problems.allSatisfy { !$0.contains("\n") })
  }

  @Test func `one changed element of the source is found`() throws {
    for name in ["encoder.layer.0.output.dense.bias", "encoder.layer.0.output.dense.weight"] {
      let copy = try temporary.folder("copy")
      defer { try? FileManager.default.removeItem(atPath: copy) }
      for file in try FileManager.default.contentsOfDirectory(atPath: fixtures + "/tiny-bert-sharded") {
        try FileManager.default.copyItem(
          atPath: fixtures + "/tiny-bert-sharded/" + file, toPath: copy + "/" + file)
      }
      // Both are in the last shard; the bytes are looked up by their values.
      let shard = URL(filePath: copy + "/model-00003-of-00003.safetensors")
      var bytes = try Data(contentsOf: shard)
      let place = try #require(bytes.range(of: Data(try source.bytes(of: name))))
      bytes[place.lowerBound + 1] ^= 0x40
      try bytes.write(to: shard)
      let problems = try report(against: openDenseCheckpoint(at: copy)).problems
      #expect(problems.contains { $0.contains("'\(name)'") })
      #expect(problems.contains { $0.contains("model-00003-of-00003.safetensors") })
      #expect(problems.count == 2)
    }
  }

  @Test func `a recorded error that is not the measured one is found`() throws {
    let path = folder + "/manifest.json"
    var object = try #require(
      JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: path))) as? [String: Any])
    var records = try #require(object["tensors"] as? [[String: Any]])
    let index = try #require(records.firstIndex { $0["kind"] as? String == "mpo" })
    records[index]["relative_error"] = 0.001
    object["tensors"] = records
    let blank = String(repeating: "0", count: 64)
    object["manifest_sha256"] = blank
    let text = String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
    try Data(text.utf8).write(to: URL(filePath: path))
    let digest = try FileFingerprint(ofFileAt: path).sha256
    try Data(text.replacingOccurrences(of: blank, with: digest).utf8).write(to: URL(filePath: path))
    #expect(try report().problems.isEmpty)
    let problems = try report(against: source).problems
    #expect(problems.contains { $0.contains("the manifest says 0.001") })
  }
}
