import Foundation
import TestSupport
import Testing

@testable import Checkpoints

/// Keras archives whose weights are shards.
@Suite struct KerasArchiveTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func path(_ name: String) -> String { fixtures + "/hdf5/" + name }

  private func copy(_ source: any DenseCheckpoint, to writer: HDF5Writer) throws {
    for tensor in source.tensors { try source.withBytes(of: tensor) { try writer.write($0, to: tensor.name) } }
    try writer.finish()
  }

  private func expectSame(_ one: any DenseCheckpoint, _ other: any DenseCheckpoint) throws {
    #expect(one.tensors.map(\.name).sorted() == other.tensors.map(\.name).sorted())
    for tensor in other.tensors {
      #expect(one.tensor(named: tensor.name) == tensor)
      #expect(try one.bytes(of: tensor.name) == other.bytes(of: tensor.name))
    }
  }

  @Test func `an archive of shards is one checkpoint`() throws {
    let archive = try openDenseCheckpoint(at: path("sharded.keras"))
    try expectSame(archive, openDenseCheckpoint(at: path("keras3.weights.h5")))
    #expect(archive.files == [path("sharded.keras")] && archive.notices == [])
    let kernel = try #require(archive.tensor(named: "layers/dense/vars/0"))
    #expect(kernel.orientation == .inputOutput)
    #expect(throws: CheckpointError.self) { try archive.withBytes(of: kernel, in: 0..<kernel.byteCount + 1) { _ in } }
  }

  @Test func `an archive of shards is written with the weights of each exchanged`() throws {
    let source = try HDF5Checkpoint(path: path("sharded.keras"))
    let skeleton = try folder.path + "/" + #require(source.skeletonName)
    try source.writeSkeleton(to: skeleton)
    let (output, file) = (folder.path + "/model.keras", folder.path + "/model.h5")
    try copy(source, to: HDF5Writer(skeleton: skeleton, output: output, tensors: source.tensors, asKerasArchive: true))
    let result = try HDF5Checkpoint(path: output)
    #expect(result.tensors == source.tensors && result.parts.count == 2)
    try expectSame(result, source)
    try copy(source, to: HDF5Writer(skeleton: skeleton, output: file))
    try expectSame(openDenseCheckpoint(at: file), source)
    #expect(try folder.names == ["model.h5", "model.keras", "skeleton.keras"])
  }

  @Test(arguments: [
    ("sharded_missing.keras", "names the shard 'model_00001.weights.h5', which is not in it"),
    (
      "sharded_twice.keras",
      "tensor 'layers/dense/vars/0': it is in shard 'model_00000.weights.h5' and in shard 'model_00001.weights.h5'"
    ),
  ])
  func `an archive whose shards do not fit their index is refused`(name: String, reason: String) {
    let refusal = message { try openDenseCheckpoint(at: path(name)) }
    #expect(refusal?.hasPrefix(path(name)) == true && refusal?.contains(reason) == true, "\(refusal ?? "")")
  }

  @Test func `an archive that is cut short or has changed bytes is refused or read as it was`() throws {
    let content = Array(try Data(contentsOf: URL(filePath: path("sharded.keras"))))
    let source = try openDenseCheckpoint(at: path("sharded.keras"))
    var generator = SeededGenerator(seed: 3)
    for round in 0..<40 {
      var bytes = content
      if round < 10 {
        bytes.removeLast(Int.random(in: 1..<content.count, using: &generator))
      } else {
        bytes[Int.random(in: 0..<content.count, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      }
      let damaged = try folder.write(bytes, to: "m.keras")
      guard let result = try? openDenseCheckpoint(at: damaged) else { continue }
      try expectSame(result, source)
    }
  }
}
