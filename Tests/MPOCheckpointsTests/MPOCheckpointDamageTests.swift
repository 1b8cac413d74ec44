import Checkpoints
import Files
import Foundation
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

@Suite struct MPOCheckpointDamageTests {
  /// As one shard, as several with an index, packed, and with a quantised core.
  @Test(arguments: [
    (5_000_000_000, false, false, Gauge.canonical), (16, false, false, .canonical),
    (5_000_000_000, true, false, .spectral),
    (5_000_000_000, true, true, .canonical), (5_000_000_000, false, false, .compact),
  ])
  func `every flipped bit of every file is found`(
    maximumShardBytes: Int, packs: Bool, quantizes: Bool, gauge: Gauge
  ) throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let source = try temporary.folder("source")
    try Data("{}".utf8).write(to: URL(filePath: source + "/config.json"))
    var contents = CheckpointContents.matrix(
      .f32, .lowRank(rows: 3, columns: 3), bonds: [1], gauge: gauge, core: .f16, central: quantizes ? .int8 : nil)
    contents.append(TensorRecord(dense: TensorInfo(name: "b", dtype: .u8, shape: [60])))
    contents.append(TensorRecord(name: "v", dtype: .f32, shape: [3, 3], orientation: nil, storage: .tied(to: "w")))
    let writer = try MPOCheckpointWriter(
      folder: folder, contents: contents, packs: packs, maximumShardBytes: maximumShardBytes)
    _ = try writer.write(MPO<Float>.random(contents.operators[0], seed: 1), of: contents.operators[0])
    try [UInt8](repeating: 7, count: 60).withUnsafeBytes { try writer.write($0, of: contents.tensors[1]) }
    try writer.finish(
      generator: "t", source: nil, conversion: nil, companions: [Companion(ofModel: "config.json")], from: source)

    let names = try FileManager.default.contentsOfDirectory(atPath: folder)
    let shards =
      maximumShardBytes > 1000
      ? ["tensors.safetensors"]
      : ["tensors-00001-of-00002.safetensors", "tensors-00002-of-00002.safetensors", "tensors.safetensors.index.json"]
    #expect(names.sorted() == ["config.json", "manifest.json"] + shards)
    #expect(try MPOCheckpoint(path: folder).contents.isPacked == packs)
    for name in names {
      let path = folder + "/" + name
      let bytes = Array(try Data(contentsOf: URL(filePath: path)))
      let file = try #require(FileHandle(forUpdatingAtPath: path))
      defer { try? file.close() }
      for place in bytes.indices {
        for bit in 0..<8 {
          try file.seek(toOffset: UInt64(place))
          try file.write(contentsOf: [bytes[place] ^ (1 << UInt8(bit))])
          if try isSound(folder) { Issue.record("bit \(bit) of byte \(place) of \(name) was flipped unnoticed") }
        }
        try file.seek(toOffset: UInt64(place))
        try file.write(contentsOf: [bytes[place]])
      }
    }
    #expect(try isSound(folder))
  }

  @Test func `a changed file is named with both digests`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder)
    let path = folder + "/tensors.safetensors"
    var bytes = try Data(contentsOf: URL(filePath: path))
    let before = try FileFingerprint(ofFileAt: path).sha256
    bytes[bytes.count - 1] ^= 1
    try bytes.write(to: URL(filePath: path))
    let found = try MPOCheckpoint(path: folder).damagedFiles()
    #expect(found.count == 1)
    let message = "\(try #require(found.first))"
    for part in [path, before, try FileFingerprint(ofFileAt: path).sha256] { #expect(message.contains(part)) }
  }

  @Test func `every truncation of a shard is found`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder, maximumShardBytes: 300)
    for shard in try MPOCheckpoint(path: folder).manifest.shards {
      let url = URL(filePath: folder + "/" + shard.file)
      let bytes = try Data(contentsOf: url)
      for count in stride(from: 0, to: bytes.count, by: 41) {
        try bytes.prefix(count).write(to: url)
        let error = #expect(throws: MPOCheckpointError.self) { try MPOCheckpoint(path: folder) }
        #expect("\(try #require(error))".contains("has \(count) bytes, the manifest says \(bytes.count)"))
      }
      try bytes.write(to: url)
    }
    #expect(try isSound(folder))
  }

  private func isSound(_ folder: String) throws -> Bool {
    guard let checkpoint = try? MPOCheckpoint(path: folder) else { return false }
    return try checkpoint.damagedFiles().isEmpty
  }
}
