import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct TensorNameTests {
  /// Canonically equivalent: equal as Swift strings, of different bytes. The parts in groups differ in the groups.
  private static let names = ["\u{E9}", "e\u{301}", "\u{E9}s/a", "e\u{301}s/a"]
  private let folder: TemporaryFolder
  private let tensors = names.map { TensorInfo(name: $0, dtype: .u8, shape: [2]) }

  init() throws { folder = try TemporaryFolder() }

  /// Writes another value to each tensor and reads it back.
  private func check(_ writer: any DenseCheckpointWriter) throws {
    for (value, tensor) in tensors.enumerated() {
      try [UInt8(value), UInt8(value)].withUnsafeBytes { try writer.write($0, to: tensor.name) }
    }
    try writer.finish()
    let checkpoint = try openDenseCheckpoint(at: folder.path)
    #expect(checkpoint.tensors.count == tensors.count)
    for (value, tensor) in tensors.enumerated() {
      let found = try #require(checkpoint.tensor(named: tensor.name))
      #expect(found.name.utf8.elementsEqual(tensor.name.utf8))
      #expect(try checkpoint.withBytes(of: found) { Array($0) } == [UInt8(value), UInt8(value)])
    }
  }

  @Test func `names are equal when their bytes are`() {
    #expect(TensorName("\u{E9}") != TensorName("e\u{301}"))
    #expect(Set(Self.names.map { TensorName($0) }).count == 4)
    #expect(tensors[0] != tensors[1])
  }

  @Test func `a safetensors file keeps names apart by their bytes`() throws {
    try check(SafetensorsWriter(path: folder.path + "/model.safetensors", tensors: tensors))
  }

  @Test func `shards keep names apart by their bytes`() throws {
    try check(ShardedSafetensorsWriter(folder: folder.path, tensors: tensors, maximumShardBytes: 2))
  }

  @Test func `an HDF5 file keeps names apart by their bytes`() throws {
    try check(HDF5Writer(creating: folder.path + "/model.h5", tensors: tensors))
  }

  @Test func `a restored HDF5 file keeps names apart by their bytes`() throws {
    let path = folder.path + "/original/model.h5"
    _ = try folder.folder("original")
    let original = try HDF5Writer(creating: path, tensors: tensors)
    for tensor in tensors {
      try [UInt8](repeating: 9, count: 2).withUnsafeBytes { try original.write($0, to: tensor.name) }
    }
    try original.finish()
    try check(HDF5Writer(skeleton: path, output: folder.path + "/model.h5"))
  }

  @Test func `metadata whose names differ in their bytes only are two`() throws {
    let header = "{\"__metadata__\":{\"e\u{301}\":\"2\",\"\u{E9}\":\"1\"}}"
    let path = try folder.write(safetensorsBytes(header: header), to: "a.safetensors")
    let metadata = try SafetensorsFile(path: path).metadata
    #expect(metadata["\u{E9}"] == "1" && metadata["e\u{301}"] == "2")
    let copy = folder.path + "/b.safetensors"
    try SafetensorsWriter(path: copy, tensors: [], metadata: metadata).finish()
    let bytes = Array(try Data(contentsOf: URL(filePath: copy)))
    #expect(!bytes.ranges(of: Array(header.utf8)).isEmpty)
    #expect(try SafetensorsFile(path: copy).metadata == metadata)
    #expect(metadata != ["\u{E9}": "1"] && metadata != ["\u{E9}": "2", "e\u{301}": "1"])
    // A text of other bytes is another text.
    #expect(CheckpointMetadata(["a": "\u{E9}"]) != ["a": "e\u{301}"])
  }

  @Test(arguments: [["\u{E9}": "1"] as CheckpointMetadata, ["\u{E9}": "1", "e\u{301}": "2", "a": ""], [:]])
  func `metadata survive JSON`(metadata: CheckpointMetadata) throws {
    let data = try JSONEncoder().encode(metadata)
    #expect(try JSONDecoder().decode(CheckpointMetadata.self, from: data) == metadata)
  }

  @Test(arguments: [#"[["a"]]"#, #"[["a","b"],["a","c"]]"#, #"[1]"#, #"{"a":1}"#, "1"])
  func `what is not metadata is refused`(json: String) {
    #expect(throws: DecodingError.self) { try JSONDecoder().decode(CheckpointMetadata.self, from: Data(json.utf8)) }
  }
}
