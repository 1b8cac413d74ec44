import Checkpoints
import Foundation
import MPOCheckpoints
import Squeezing
import TestSupport
import Testing

@testable import Conversion

@Suite struct RestorerTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  @Test func `a restored folder has the tensors, metadata and companions of the source`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let checkpoint = try converted(source, .ratio(0.7), to: temporary.folder("a.mpo"))
    let folder = try temporary.folder("model")
    try Restorer(jobs: 3).restoreFolder(checkpoint, to: folder)
    let restored = try openDenseCheckpoint(at: folder)
    #expect(restored.tensors == source.tensors)
    #expect(restored.metadata == source.metadata)
    #expect(restored.companions == source.companions)
    for companion in source.companions {
      #expect(
        FileManager.default.contentsEqual(
          atPath: folder + "/" + companion, andPath: fixtures + "/tiny-bert-sharded/" + companion))
    }
    let decomposed = Set(checkpoint.contents.tensors.filter { $0.blocks != nil }.map(\.name))
    #expect(!decomposed.isEmpty)
    for tensor in source.tensors where !decomposed.contains(tensor.name) {
      if case .tied(let other)? = checkpoint.record(named: tensor.name)?.storage, decomposed.contains(other) {
        continue
      }
      #expect(try restored.bytes(of: tensor.name) == source.bytes(of: tensor.name))
    }
    #expect(
      try FileManager.default.subpathsOfDirectory(atPath: folder).filter {
        $0.hasPrefix("tensors") || $0 == "manifest.json"
      }
        == [])
  }

  @Test func `a restored file can be converted again`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert")
    let checkpoint = try converted(source, .ratio(0.5), to: temporary.folder("a.mpo"))
    let path = temporary.path + "/again.safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    let again = try openDenseCheckpoint(at: path)
    #expect(again.tensors == source.tensors)
    let second = try converted(again, .lossless, to: temporary.folder("b.mpo"))
    #expect(second.manifest.contents.tensors.map(\.info) == source.tensors)
  }

  @Test(arguments: ["F32", "F64", "F16", "BF16", "I8", "I64", "U16", "BOOL", "F8_E4M3", "F8_E5M2", "C64"])
  func `tensors of every type come back bit for bit`(dtype: String) throws {
    let source = try openDenseCheckpoint(at: fixtures + "/dtypes/\(dtype).safetensors")
    let profile = NetworkProfile(
      parameters: source.tensors.reduce(0) { $0 + $1.elementCount }, tiedParameters: 0, layers: [])
    let folder = try temporary.folder("a.mpo")
    try Converter(jobs: 2, generator: "tests").convert(
      source, plan: SqueezePlan(profile, budget: .ratio(1)), to: folder)
    let path = temporary.path + "/out.safetensors"
    try Restorer(jobs: 2).restoreFile(MPOCheckpoint(path: folder), to: path)
    let restored = try openDenseCheckpoint(at: path)
    #expect(restored.tensors == source.tensors)
    for tensor in source.tensors { #expect(try restored.bytes(of: tensor.name) == source.bytes(of: tensor.name)) }
  }
}
