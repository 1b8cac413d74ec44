import Checkpoints
import Foundation
import MPOCheckpoints
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Parts of the hand-made checkpoint of fixtures/malformed, whose operators share cores and bases.
@Suite struct HandMadePartsTests {
  private let temporary: TemporaryFolder
  private let base: MPOCheckpoint
  private let expected: SafetensorsFile

  init() throws {
    temporary = try TemporaryFolder()
    base = try MPOCheckpoint(path: fixtures + "/malformed/base.mpo")
    expected = try SafetensorsFile(path: fixtures + "/malformed/base-matrices.safetensors")
  }

  /// Writes the tensors that `belongs` picks as a part.
  private func part(_ index: Int, _ belongs: (String) -> Bool) throws -> MPOCheckpoint {
    let positions = base.contents.tensors.indices.filter { belongs(base.contents.tensors[$0].name) }
    let contents = base.contents.selecting(positions)
    let folder = try temporary.folder("part\(index)-\(UUID().uuidString)")
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents, packs: true)
    for tensor in contents.tensors where tensor.isDense { try writer.copyDense(tensor, from: base) }
    for core in contents.cores { try writer.copy(core, from: base) }
    try writer.finish(
      generator: base.manifest.generator, source: base.manifest.source, conversion: nil,
      part: CheckpointManifest.Part(
        index: index, count: 2, tensorCount: base.contents.tensors.count, positions: positions))
    return try MPOCheckpoint(path: folder)
  }

  private static let inFirst = ["chain.weight", "chain.bias", "tied.weight", "tied.bias", "a.weight", "q.weight"]

  @Test func `the tensors are restored bit for bit`() throws {
    let path = temporary.path + "/restored.safetensors"
    try Restorer(jobs: 2).restoreFile(base, to: path)
    let restored = try SafetensorsFile(path: path)
    #expect(restored.tensors.map(\.name) == base.contents.tensors.map(\.name))
    for tensor in expected.tensors { #expect(try restored.bytes(of: tensor.name) == expected.bytes(of: tensor.name)) }
    let report = try Verifier(jobs: 2).verify(base, against: restored)
    // The recorded error of one matrix, and of the one that is tied to it, is made up.
    #expect(report.problems.count == 2, "\(report.problems)")
    for name in ["'chain.weight'", "'tied.weight'"] {
      #expect(report.problems.contains { $0.contains(name) && $0.contains("the manifest says 0.25") })
    }
  }

  @Test func `parts that share operators, cores and bases are merged, each shared core once`() throws {
    let one = try part(1) { Self.inFirst.contains($0) }
    let two = try part(2) { !Self.inFirst.contains($0) }
    for name in ["shared.central", "shared.basis", "qk.cores.0"] {
      #expect(one.contents.core(named: name) != nil && two.contents.core(named: name) != nil)
    }
    for part in [one, two] {
      #expect(try Verifier(jobs: 1).verify(part).problems == [])
    }
    let folder = try temporary.folder("merged")
    try Merger(jobs: 2).merge([two, one], to: folder)
    let merged = try MPOCheckpoint(path: folder)
    #expect(merged.contents.cores.map(\.name) == base.contents.cores.map(\.name))
    #expect(merged.manifest.totals.parametersStored == base.manifest.totals.parametersStored)
    #expect(try Verifier(jobs: 2).verify(merged).problems == [])
    let path = temporary.path + "/restored.safetensors"
    try Restorer(jobs: 2).restoreFile(merged, to: path)
    let restored = try SafetensorsFile(path: path)
    for tensor in expected.tensors { #expect(try restored.bytes(of: tensor.name) == expected.bytes(of: tensor.name)) }
  }

  @Test func `a part that lacks what a tensor is tied to is refused when it is written`() throws {
    expectFailure("tied.weight", "chain.weight") { _ = try part(1) { $0 == "tied.weight" } }
  }

  @Test func `parts whose shared core has other bytes, or another operator of one name, are refused`() throws {
    let one = try part(1) { Self.inFirst.contains($0) }
    let contents = base.contents.selecting(
      base.contents.tensors.indices.filter { !Self.inFirst.contains(base.contents.tensors[$0].name) })
    let folder = try temporary.folder("other")
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents)
    for tensor in contents.tensors where tensor.isDense { try writer.copyDense(tensor, from: base) }
    for core in contents.cores where core.name != "shared.central" && core.name != "b.weight.cores.0" {
      if core.name != "b.weight.cores.2" { try writer.copy(core, from: base) }
    }
    let record = try base.operator("b.weight")
    var cores = try base.chain(record, as: Float.self).cores
    cores[1].elements[0] += 1
    _ = try writer.write(GaugedMPO(gauge: .canonical, mpo: MPO(shape: record.shape, cores: cores)), of: record)
    try writer.finish(
      generator: base.manifest.generator, source: base.manifest.source, conversion: nil,
      part: CheckpointManifest.Part(
        index: 2, count: 2, tensorCount: base.contents.tensors.count,
        positions: base.contents.tensors.indices.filter { !Self.inFirst.contains(base.contents.tensors[$0].name) }))
    expectFailure(folder, "another core 'shared.central'") {
      try Merger(jobs: 1).merge([one, MPOCheckpoint(path: folder)], to: temporary.folder("merged"))
    }
  }
}
