import Files
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct SafetensorsWriterTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func write(_ bytes: [UInt8], to name: String, of writer: some DenseCheckpointWriter) throws {
    try bytes.withUnsafeBytes { try writer.write($0, to: name) }
  }

  private func contents(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/" + name)))
  }

  @Test func `tensors of every type are read back as they were written`() throws {
    let tensors =
      DType.allCases.map { TensorInfo(name: "t.\($0.rawValue)", dtype: $0, shape: [2, 4]) } + [
        TensorInfo(name: "scalar \"\\\n", dtype: .f32, shape: []),
        TensorInfo(name: "empty", dtype: .f32, shape: [0, 3]),
      ]
    let path = folder.path + "/a.safetensors"
    let metadata: CheckpointMetadata = ["format": "pt", "é": "\u{1}"]
    let writer = try SafetensorsWriter(path: path, tensors: tensors, metadata: metadata)
    for (number, tensor) in tensors.enumerated().reversed() where tensor.name != "empty" {
      try write((0..<tensor.byteCount).map { UInt8($0 + number) }, to: tensor.name, of: writer)
    }
    try writer.finish()
    let file = try SafetensorsFile(path: path)
    #expect(file.tensors == tensors)
    #expect(file.metadata == metadata)
    for (number, tensor) in tensors.enumerated() {
      #expect(try file.bytes(of: tensor.name) == (0..<tensor.byteCount).map { UInt8($0 + number) })
    }
    #expect(try contents("a.safetensors").count == writer.byteCount)
    #expect(try contents("a.safetensors")[0].isMultiple(of: 8))
  }

  @Test(arguments: DType.allCases.filter { $0 != .f6E2M3 && $0 != .f6E3M2 })
  func `the bytes are those that the safetensors package writes`(dtype: DType) throws {
    let original = "\(fixtures)/dtypes/\(dtype.rawValue).safetensors"
    let file = try SafetensorsFile(path: original)
    let path = folder.path + "/copy.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: file.tensors, metadata: file.metadata)
    for tensor in file.tensors { try file.withBytes(of: tensor) { try writer.write($0, to: tensor.name) } }
    try writer.finish()
    #expect(try contents("copy.safetensors") == Array(Data(contentsOf: URL(fileURLWithPath: original))))
  }

  @Test func `threads write different tensors at once`() async throws {
    let tensors = (0..<64).map { TensorInfo(name: "t\($0)", dtype: .u8, shape: [10_000 + $0]) }
    let path = folder.path + "/a.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: tensors)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (number, tensor) in tensors.enumerated() {
        group.addTask {
          let bytes = [UInt8](repeating: UInt8(number), count: tensor.byteCount)
          try bytes.withUnsafeBytes { try writer.write($0, to: tensor.name) }
        }
      }
      try await group.waitForAll()
    }
    try writer.finish()
    let file = try SafetensorsFile(path: path)
    for (number, tensor) in tensors.enumerated() {
      #expect(try file.bytes(of: tensor.name).allSatisfy { $0 == UInt8(number) })
    }
  }

  @Test func `wrong use of a writer is an error`() throws {
    let path = folder.path + "/a.safetensors"
    let info = TensorInfo(name: "a", dtype: .u8, shape: [4])
    let writer = try SafetensorsWriter(path: path, tensors: [info])
    #expect(message { try writer.finish() }?.contains("'a': it was declared but not written") == true)
    #expect(message { try write([1, 2, 3], to: "a", of: writer) }?.contains("3 bytes are written, 4") == true)
    #expect(
      message { try write([1], to: "b", of: writer) }?.contains("'b': it is written but was not declared") == true)
    try write([1, 2, 3, 4], to: "a", of: writer)
    #expect(message { try write([1, 2, 3, 4], to: "a", of: writer) }?.contains("written twice") == true)
    try writer.finish()

    func refusal(_ tensors: TensorInfo...) -> String? {
      message { try SafetensorsWriter(path: path, tensors: tensors) }
    }
    #expect(refusal(info, info)?.contains("declared twice") == true)
    #expect(refusal(TensorInfo(name: "__metadata__", dtype: .u8, shape: []))?.contains("reserves this name") == true)
    #expect(refusal(TensorInfo(name: "a", dtype: .f32, shape: [1 << 62]))?.contains("overflows") == true)
    #expect(refusal(TensorInfo(name: "a", dtype: .f32, shape: [-1]))?.contains("overflows") == true)
    #expect(refusal(TensorInfo(name: "a", dtype: .f4, shape: [3]))?.contains("not a whole number of bytes") == true)
    #expect(
      message { try SafetensorsWriter(path: folder.path + "/no/a", tensors: []) }?
        .contains("cannot create it: no such file or directory") == true)
  }

  @Test func `a full disk is named with its remedy`() {
    let error = FileError.system("a", "write it", ENOSPC, needed: 9)
    #expect("\(error)" == "a: cannot write it: no space left on device: free 9 bytes or choose another output")
  }

  // MARK: - Sharded

  @Test func `one shard has no index`() throws {
    let tensors = [TensorInfo(name: "a", dtype: .u8, shape: [4])]
    let writer = try ShardedSafetensorsWriter(folder: folder.path, tensors: tensors, maximumShardBytes: 4)
    try write([1, 2, 3, 4], to: "a", of: writer)
    try writer.finish()
    #expect(writer.files == ["model.safetensors"])
    #expect(try folder.names == ["model.safetensors"])
    #expect(try openDenseCheckpoint(at: folder.path).bytes(of: "a") == [1, 2, 3, 4])
  }

  @Test func `shards are filled in order and indexed`() throws {
    let sizes = [("z", 4), ("b", 4), ("large", 20), ("é", 1), ("c", 7)]
    let tensors = sizes.map { TensorInfo(name: $0, dtype: .u8, shape: [$1]) }
    let writer = try ShardedSafetensorsWriter(
      folder: folder.path, stem: "tensors", tensors: tensors, metadata: ["format": "pt"], maximumShardBytes: 8)
    for (name, size) in sizes { try write([UInt8](repeating: UInt8(size), count: size), to: name, of: writer) }
    try writer.finish()
    let shards = (1...3).map { "tensors-0000\($0)-of-00003.safetensors" }
    #expect(writer.files == shards + ["tensors.safetensors.index.json"])
    #expect(try folder.names == (shards + ["tensors.safetensors.index.json"]).sorted())
    #expect(
      String(decoding: try contents("tensors.safetensors.index.json"), as: UTF8.self) == """
        {
          "metadata": {
            "total_size": 36
          },
          "weight_map": {
            "b": "tensors-00001-of-00003.safetensors",
            "c": "tensors-00003-of-00003.safetensors",
            "large": "tensors-00002-of-00003.safetensors",
            "z": "tensors-00001-of-00003.safetensors",
            "\\u00e9": "tensors-00003-of-00003.safetensors"
          }
        }

        """)
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(model.tensors == tensors)
    for (name, size) in sizes { #expect(try model.bytes(of: name) == [UInt8](repeating: UInt8(size), count: size)) }
  }

  @Test func `the index is the one that Python writes`() throws {
    let original = fixtures + "/tiny-bert-sharded/model.safetensors.index.json"
    let model = try ShardedSafetensors(indexPath: original)
    var weightMap: [TensorName: String] = [:]
    for path in model.files {
      for tensor in try SafetensorsFile(path: path).tensors {
        weightMap[tensor.key] = (path as NSString).lastPathComponent
      }
    }
    let text = ShardedSafetensorsWriter.indexText(
      totalSize: model.tensors.reduce(0) { $0 + $1.byteCount }, weightMap)
    #expect(try text == String(contentsOfFile: original, encoding: .utf8))
  }

  @Test func `a copy in other shards holds the same tensors`() throws {
    let model = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let writer = try ShardedSafetensorsWriter(
      folder: folder.path, tensors: model.tensors, metadata: model.metadata, maximumShardBytes: 20_000)
    for tensor in model.tensors { try model.withBytes(of: tensor) { try writer.write($0, to: tensor.name) } }
    try writer.finish()
    let copy = try openDenseCheckpoint(at: folder.path)
    #expect(copy.tensors == model.tensors && copy.metadata == model.metadata)
    #expect(copy.files.count > 3)
    for tensor in model.tensors { #expect(try copy.bytes(of: tensor.name) == model.bytes(of: tensor.name)) }
  }
}
