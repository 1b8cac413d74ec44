import Checkpoints
import Files
import Foundation
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

/// A checkpoint with a quantised central core and entries that shrink when packed, and some that do not.
private struct CompactCheckpoint {
  let contents: CheckpointContents
  private(set) var stored: MPO<Float>

  static let shape = try? MPOShape(rowFactors: [4, 8, 2], columnFactors: [4, 8, 3])

  init(in folder: String, packs: Bool = true, backwards: Bool = false, maximumShardBytes: Int = 5_000_000_000) throws {
    let split = MatrixSplit(rows: 64, columns: 96, shape: try #require(Self.shape))
    var contents = CheckpointContents.matrix(.f32, split, bonds: [16, 6], core: .bf16, central: .int8)
    contents.append(TensorRecord(dense: TensorInfo(name: "zeros", dtype: .f32, shape: [20, 30])))
    contents.append(TensorRecord(dense: TensorInfo(name: "noise", dtype: .u8, shape: [100])))
    contents.append(TensorRecord(dense: TensorInfo(name: "empty", dtype: .f32, shape: [0])))
    contents.append(
      TensorRecord(name: "tied", dtype: .f32, shape: [64, 96], orientation: nil, storage: .tied(to: "w")))
    self.contents = contents
    let writer = try MPOCheckpointWriter(
      folder: folder, contents: contents, packs: packs, maximumShardBytes: maximumShardBytes)
    let mpo = try MPO<Float>.random(contents.operators[0], seed: 1)
    stored = mpo.mpo
    for index in backwards ? [2, 1, 0] : [0, 1, 2] {
      if index == 0 {
        stored = try writer.write(mpo, of: contents.operators[0])
      } else {
        try Self.dense[index - 1].withUnsafeBytes { try writer.write($0, of: contents.tensors[index]) }
      }
    }
    try writer.finish(generator: "tests", source: nil, conversion: nil)
  }

  static let dense: [[UInt8]] = {
    var generator = SeededGenerator(seed: 4)
    return [
      Array(repeating: 0, count: 2400), (0..<100).map { _ in UInt8.random(in: 0...255, using: &generator) },
    ]
  }()
}

@Suite struct PackedCheckpointTests {
  private let temporary: TemporaryFolder
  private let folder: String

  init() throws {
    temporary = try TemporaryFolder()
    folder = try temporary.folder("a.mpo")
  }

  private func expectRefused(_ parts: String..., at location: SourceLocation = #_sourceLocation) {
    do {
      let checkpoint = try MPOCheckpoint(path: folder)
      for record in checkpoint.contents.tensors {
        if let matrix = record.blocks {
          _ = try checkpoint.matrix(of: matrix, as: Float.self)
        } else if record.isDense {
          try checkpoint.withDenseBytes(of: record) { _ in }
        }
      }
      Issue.record("it was accepted", sourceLocation: location)
    } catch {
      #expect(error is MPOCheckpointError, sourceLocation: location)
      for part in [folder] + parts {
        #expect("\(error)".contains(part), "'\(part)' is not in: \(error)", sourceLocation: location)
      }
    }
  }

  @Test(arguments: [true, false], [5_000_000_000, 500])
  func `cores, quantised or not, and dense tensors are read as they were written`(
    packs: Bool, maximumShardBytes: Int
  ) throws {
    let sample = try CompactCheckpoint(in: folder, packs: packs, maximumShardBytes: maximumShardBytes)
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(checkpoint.manifest.shards.count > 1 || maximumShardBytes > 500)
    #expect(try checkpoint.damagedFiles() == [])
    #expect(try checkpoint.chain(checkpoint.operator("w"), as: Float.self) == sample.stored)
    for (name, bytes) in zip(["zeros", "noise", "empty"], CompactCheckpoint.dense + [[]]) {
      let record = try #require(checkpoint.record(named: name))
      #expect(try checkpoint.withDenseBytes(of: record) { Array($0) } == bytes)
    }
    let names = checkpoint.contents.arrays.flatMap(\.packed).map(\.name)
    #expect(names.contains("zeros") == packs && !names.contains("noise"))
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasPrefix(".") }.isEmpty)
  }

  @Test func `entries are those that the format describes`() throws {
    _ = try CompactCheckpoint(in: folder, packs: false)
    let entries = Dictionary(
      uniqueKeysWithValues: try SafetensorsFile(path: folder + "/tensors.safetensors").tensors.map { ($0.name, $0) })
    #expect(entries["w.cores.0"]?.dtype == .bf16 && entries["w.cores.2"]?.dtype == .bf16)
    #expect(entries["w.cores.1"]?.dtype == .i8 && entries["w.cores.1"]?.shape == [16, 8, 8, 6])
    #expect(entries["w.cores.1.scales"]?.dtype == .f32 && entries["w.cores.1.scales"]?.shape == [1, 8, 1, 6])
    let core = try #require(MPOCheckpoint(path: folder).contents.core(named: "w.cores.1"))
    #expect(core.encoding == ArrayEncoding(.scaled(scaleShape: [1, 8, 1, 6])) && core.packed.isEmpty)
  }

  @Test func `a packed entry is bytes that the manifest describes`() throws {
    _ = try CompactCheckpoint(in: folder)
    let entries = try SafetensorsFile(path: folder + "/tensors.safetensors").tensors
    let zeros = try #require(entries.first { $0.name == "zeros" })
    #expect(zeros.dtype == .u8 && zeros.shape.count == 1)
    let packed = try #require(ManifestText(in: folder).record("zeros")["packed"] as? [[String: Any]]?)?.first
    let members = try #require(packed)
    #expect(Set(members.keys) == ["name", "codec", "dtype", "shape", "block_bytes", "bytes"])
    #expect(members["codec"] as? String == "shuffle-deflate" && members["dtype"] as? String == "F32")
    #expect(members["shape"] as? [Int] == [20, 30] && members["bytes"] as? Int == zeros.shape[0])
    #expect(members["name"] as? String == "zeros" && members["block_bytes"] as? Int == 262_144)
  }

  @Test func `totals count parameters, not scales, and bytes as they are stored`() throws {
    _ = try CompactCheckpoint(in: folder)
    let totals = try MPOCheckpoint(path: folder).manifest.totals
    let central = 16 * 8 * 8 * 6
    let auxiliary = 4 * 4 * 16 + 6 * 2 * 3
    #expect(totals.parametersStored == central + auxiliary + 600 + 100)
    #expect(totals.parametersTrainable == auxiliary)
    #expect(totals.bytesUnpacked == central + 4 * 48 + 2 * auxiliary + 2400 + 100)
    let entries = try SafetensorsFile(path: folder + "/tensors.safetensors").tensors
    #expect(totals.bytesStored == entries.reduce(0) { $0 + $1.byteCount })
    #expect(totals.bytesStored < totals.bytesUnpacked ?? 0)
  }

  @Test func `the order of writing does not show`() throws {
    _ = try CompactCheckpoint(in: folder)
    let other = try temporary.folder("b.mpo")
    _ = try CompactCheckpoint(in: other, backwards: true)
    for name in ["tensors.safetensors", "manifest.json"] {
      #expect(FileManager.default.contentsEqual(atPath: folder + "/" + name, andPath: other + "/" + name))
    }
  }

  @Test func `a copy of a tensor has its bytes`() throws {
    _ = try CompactCheckpoint(in: folder)
    let source = try MPOCheckpoint(path: folder)
    for packs in [true, false] {
      let other = try temporary.folder("copy-\(packs).mpo")
      let writer = try MPOCheckpointWriter(folder: other, contents: source.contents, packs: packs)
      for record in source.contents.tensors { try writer.copyDense(record, from: source) }
      for core in source.contents.cores { try writer.copy(core, from: source) }
      try writer.finish(generator: "tests", source: nil, conversion: nil)
      let copy = try MPOCheckpoint(path: other)
      #expect(copy.contents.isPacked == packs)
      for entry in copy.contents.arrays.flatMap(\.entries) {
        #expect(try copy.withEntryBytes(of: entry) { Array($0) } == source.withEntryBytes(of: entry) { Array($0) })
      }
    }
  }

  @Test func `what was not written, or twice, or in another size, is an error`() throws {
    let record = TensorRecord(dense: TensorInfo(name: "b", dtype: .f32, shape: [4]))
    let contents = CheckpointContents(tensors: [record])
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents, packs: true)
    #expect(throws: CheckpointError.self) { try writer.finish(generator: "t", source: nil, conversion: nil) }
    try [UInt8](repeating: 0, count: 16).withUnsafeBytes { try writer.write($0, of: record) }
    #expect(throws: CheckpointError.self) {
      try [UInt8](repeating: 0, count: 16).withUnsafeBytes { try writer.write($0, of: record) }
    }
    let other = try MPOCheckpointWriter(folder: folder, contents: contents, packs: true)
    #expect(throws: CheckpointError.self) {
      try [UInt8](repeating: 0, count: 15).withUnsafeBytes { try other.write($0, of: record) }
    }
    #expect(throws: MPOCheckpointError.self) {
      try MPOCheckpointWriter(folder: folder, contents: CheckpointContents(tensors: [record, record]), packs: true)
    }
  }

  @Test func `a central core that can't be quantised is named`() throws {
    let shape = MPOShape.lowRank(rows: 2, columns: 2)
    let contents = CheckpointContents.matrix(
      .f64, .lowRank(rows: 2, columns: 2), bonds: [1], core: .f64, central: .int8)
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents)
    let mpo = MPO<Double>(
      shape: shape,
      cores: [MPOCore(shape: [1, 2, 1, 1], elements: [1e60, 2]), MPOCore(shape: [1, 1, 2, 1], elements: [1e60, 7])])
    let gauged = GaugedMPO(gauge: .canonical, mpo: mpo)
    let error = #expect(throws: MPOCheckpointError.self) { try writer.write(gauged, of: contents.operators[0]) }
    for part in ["'w.cores.", "store it as plain values", "--exclude"] {
      #expect("\(try #require(error))".contains(part))
    }
  }

  // MARK: - Contradictions

  /// Changes to what the manifest says of the packed entry, and what the message names.
  static let contradictions: [(member: String, value: any Sendable, named: String)] = [
    ("codec", "shuffle-zstd", "codec"), ("codec", "", "codec"), ("name", "noise", "packed"), ("name", "", "packed"),
    ("dtype", "F16", "packed"), ("dtype", "U32", "packed"), ("dtype", "X9", "dtype"),
    ("shape", [600], "packed"), ("shape", [30, 20], "packed"), ("shape", [-20, -30], "shape"),
    ("shape", [1 << 40, 1 << 40], "shape"), ("shape", [1 << 30, 1 << 20], "bytes"), ("shape", [0], "bytes"),
    ("block_bytes", 0, "block_bytes"), ("block_bytes", -8, "block_bytes"), ("block_bytes", 12, "block_bytes"),
    ("block_bytes", 1 << 40, "block_bytes"), ("block_bytes", 8, "bytes"),
    ("bytes", 0, "bytes"), ("bytes", -1, "bytes"), ("bytes", 20, "bytes"), ("bytes", 21, "bytes"),
    ("bytes", 2400, "bytes"), ("bytes", 1 << 60, "bytes"),
  ]

  @Test(arguments: contradictions.indices)
  func `a packed entry that contradicts its record is refused`(index: Int) throws {
    _ = try CompactCheckpoint(in: folder)
    let (member, value, named) = Self.contradictions[index]
    try ManifestText.edit(in: folder) {
      var packed = try #require(try $0.record("zeros")["packed"] as? [[String: Any]])
      packed[0][member] = value
      try $0.change("zeros", ["packed": packed])
    }
    expectRefused("manifest.json", "tensors[1].packed", named)
  }

  @Test func `a size that is not that of the entry in the shards is refused`() throws {
    _ = try CompactCheckpoint(in: folder)
    for difference in [-1, 1] {
      let text = try ManifestText(in: folder)
      try ManifestText.edit(in: folder) {
        var packed = try #require(try $0.record("zeros")["packed"] as? [[String: Any]])
        packed[0]["bytes"] = try #require(packed[0]["bytes"] as? Int) + difference
        try $0.change("zeros", ["packed": packed])
      }
      expectRefused("'zeros'", "U8")
      try text.write()
    }
  }

  @Test func `an entry packed twice, or packed without a word in the manifest, is refused`() throws {
    _ = try CompactCheckpoint(in: folder)
    let text = try ManifestText(in: folder)
    let packed = try #require(try text.record("zeros")["packed"] as? [[String: Any]])
    try ManifestText.edit(in: folder) { try $0.change("zeros", ["packed": packed + packed]) }
    expectRefused("manifest.json", "packed twice")
    try text.write()
    try ManifestText.edit(in: folder) { try $0.change("zeros", ["packed": nil]) }
    expectRefused("'zeros'", "U8", "F32 [20, 30]")
    try text.write()
    try ManifestText.edit(in: folder) { try $0.change("tied", ["packed": packed]) }
    expectRefused("manifest.json", "tensors[4].packed", "only dense tensors")
  }

  @Test func `a packed entry with a damaged table or block is named`() throws {
    _ = try CompactCheckpoint(in: folder)
    let path = folder + "/tensors.safetensors"
    let file = try SafetensorsFile(path: path)
    let zeros = try #require(file.tensor(named: "zeros"))
    let content = try Data(contentsOf: URL(filePath: path))
    let stored = try file.withBytes(of: zeros) { Data($0) }
    let place = try #require(content.range(of: stored)).lowerBound
    // A row of the table is 20 bytes: the sizes of four planes and a checksum.
    for (offset, part) in [
      (0, "bytes"), (3, "plane 0"), (16, "CRC-32"), (20, "plane 0"), (stored.count - 2, "plane 3"),
    ] {
      var changed = content
      changed[place + offset] ^= 0x55
      try changed.write(to: URL(filePath: path))
      expectRefused("'zeros'", part, "damaged")
    }
  }

  @Test func `entries that do not unpack, and invalid scales, are found where all checksums of files match`()
    throws
  {
    _ = try CompactCheckpoint(in: folder)
    #expect(try MPOCheckpoint(path: folder).damagedEntries() == [])
    let path = folder + "/tensors.safetensors"
    let file = try SafetensorsFile(path: path)
    var content = try Data(contentsOf: URL(filePath: path))
    for (name, place, byte) in [("zeros", 16, 0x55), ("w.cores.1.scales", 3, 0xFF)] as [(String, Int, UInt8)] {
      let entry = try #require(file.tensor(named: name))
      let found = try #require(content.range(of: try file.withBytes(of: entry) { Data($0) }))
      content[found.lowerBound + place] ^= byte
    }
    try content.write(to: URL(filePath: path))
    try ManifestText.edit(in: folder) {
      let fingerprint = try FileFingerprint(ofFileAt: path)
      $0.object["shards"] = [
        ["name": fingerprint.file, "bytes": fingerprint.bytes, "sha256": fingerprint.sha256] as [String: Any]
      ]
    }
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(try checkpoint.damagedFiles() == [])
    let damages = try checkpoint.damagedEntries().map(\.description)
    #expect(damages.count == 2)
    #expect(damages.contains { $0.contains("'w.cores.1") && $0.contains("scale") })
    #expect(damages.contains { $0.contains("'zeros'") && $0.contains("CRC-32") })
  }

  @Test(arguments: [[1, 8, 1], [1, 8, 1, 6, 1], [1, 4, 1, 6], [0, 8, 1, 6], [-1, 8, 1, -6], [16, 8, 8, 7]])
  func `scales that do not broadcast to the central core are refused`(scales: [Int]) throws {
    _ = try CompactCheckpoint(in: folder, packs: false)
    try ManifestText.edit(in: folder) {
      $0.cores[1]["encoding"] = ["kind": "scaled", "bits": 8, "scale_shape": scales] as [String: Any]
    }
    expectRefused("manifest.json", "cores[1].encoding", "broadcast")
  }

  @Test func `scales that are missing or have another shape than in the shards are refused`() throws {
    _ = try CompactCheckpoint(in: folder, packs: false)
    let text = try ManifestText(in: folder)
    try ManifestText.edit(in: folder) {
      $0.cores[1]["encoding"] = ["kind": "scaled", "bits": 8, "scale_shape": [1, 8, 8, 1]] as [String: Any]
    }
    expectRefused("'w.cores.1.scales'", "F32 [1, 8, 1, 6]", "F32 [1, 8, 8, 1]")
    try text.write()
    try ManifestText.edit(in: folder) { $0.cores[1]["encoding"] = ["kind": "plain", "dtype": "BF16"] }
    expectRefused("'w.cores.1'", "I8", "BF16")
  }

  @Test(arguments: [Float.nan, .infinity, -1])
  func `a scale that is negative or not finite is refused`(value: Float) throws {
    _ = try CompactCheckpoint(in: folder, packs: false)
    let path = folder + "/tensors.safetensors"
    let file = try SafetensorsFile(path: path)
    let scales = try #require(file.tensor(named: "w.cores.1.scales"))
    var content = try Data(contentsOf: URL(filePath: path))
    let place = try #require(content.range(of: try file.withBytes(of: scales) { Data($0) })).lowerBound
    content.replaceSubrange(place..<place + 4, with: withUnsafeBytes(of: value.bitPattern.littleEndian) { Data($0) })
    try content.write(to: URL(filePath: path))
    expectRefused("'w.cores.1'", "negative or not finite")
  }
}
