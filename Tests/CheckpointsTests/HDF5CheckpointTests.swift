import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct HDF5CheckpointTests {
  private func open(_ name: String) throws -> HDF5Checkpoint { try HDF5Checkpoint(path: fixtures + "/hdf5/" + name) }

  /// The elements of a tensor as doubles.
  private func numbers(_ name: String, of checkpoint: HDF5Checkpoint) throws -> [Double] {
    let found = checkpoint.tensor(named: name)
    let tensor = try #require(found)
    func integers<Element: FixedWidthInteger>(_ type: Element.Type) throws -> [Double] {
      try checkpoint.withBytes(of: tensor) { bytes in
        (0..<tensor.elementCount).map {
          Double(
            Element(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * Element.bitWidth / 8, as: Element.self)))
        }
      }
    }
    switch tensor.dtype {
    case .i8: return try integers(Int8.self)
    case .i16: return try integers(Int16.self)
    case .i32: return try integers(Int32.self)
    case .i64: return try integers(Int64.self)
    case .u8, .bool: return try integers(UInt8.self)
    case .u16: return try integers(UInt16.self)
    case .u32: return try integers(UInt32.self)
    case .u64: return try integers(UInt64.self)
    default: return try checkpoint.withDoubles(of: tensor) { Array($0) }
    }
  }

  // MARK: - Element types

  @Test func `every element type is read, of either byte order`() throws {
    let file = try open("dtypes.h5")
    #expect(file.format == .hdf5)
    let types: [(String, DType)] = [
      ("float16", .f16), ("float32", .f32), ("float64", .f64), ("int8", .i8), ("int16", .i16), ("int32", .i32),
      ("int64", .i64), ("uint8", .u8), ("uint16", .u16), ("uint32", .u32), ("uint64", .u64),
    ]
    for (name, dtype) in types {
      for order in ["little/", "big/"] {
        #expect(file.tensor(named: order + name) == TensorInfo(name: order + name, dtype: dtype, shape: [4, 6]))
        #expect(try numbers(order + name, of: file) == (0..<24).map(Double.init), "\(order + name)")
      }
    }
    #expect(file.tensor(named: "bfloat16")?.dtype == .bf16)
    #expect(try numbers("bfloat16", of: file) == (0..<24).map(Double.init))
    #expect(file.tensor(named: "bool")?.dtype == .bool)
    #expect(try file.bytes(of: "bool") == (0..<24).map { $0 % 3 == 0 ? 1 : 0 })
  }

  @Test func `scalars and empty datasets are tensors; texts, compounds and null dataspaces are not`() throws {
    let file = try open("dtypes.h5")
    #expect(file.tensor(named: "scalar")?.shape == [])
    #expect(try numbers("scalar", of: file) == [1.5])
    #expect(file.tensor(named: "empty")?.shape == [0, 4])
    #expect(try file.bytes(of: "empty").isEmpty)
    for name in ["text", "texts", "compound", "complex", "null"] { #expect(file.tensor(named: name) == nil) }
  }

  // MARK: - Layouts and filters

  @Test(arguments: [
    "contiguous", "chunked", "rows", "gzip", "shuffle", "fletcher32", "all", "scaleoffset", "big", "half", "double",
    "resizable",
  ])
  func `a layout or filter makes no difference`(_ name: String) throws {
    let file = try open("layouts.h5")
    #expect(file.tensor(named: name)?.shape == [60, 40])
    let expected = (0..<2400).map { name == "half" ? Double(Float16(Float($0))) : Double($0) }
    #expect(try numbers(name, of: file) == expected)
  }

  @Test func `compact datasets and those of three axes are read`() throws {
    let file = try open("layouts.h5")
    #expect(try numbers("compact", of: file) == (0..<32).map(Double.init))
    #expect(try numbers("cube", of: file) == (0..<2800).map(Double.init))
  }

  @Test func `what was never written has the fill value`() throws {
    let file = try open("layouts.h5")
    #expect(try numbers("unwritten", of: file) == Array(repeating: 3, count: 600))
    let expected = (0..<2400).map { (35..<45).contains($0 / 40) && (20..<30).contains($0 % 40) ? 1.0 : 2.5 }
    #expect(try numbers("sparse", of: file) == expected)
  }

  @Test(arguments: ["contiguous", "chunked", "rows", "all", "big", "scaleoffset", "half", "sparse", "cube", "compact"])
  func `a range is that part of the whole`(_ name: String) throws {
    let file = try open("layouts.h5")
    let found = file.tensor(named: name)
    let tensor = try #require(found)
    let whole = try file.bytes(of: name)
    for range in [0..<1, 0..<whole.count, whole.count - 1..<whole.count, 5..<61, 17..<17, 100..<121] {
      #expect(try file.withBytes(of: tensor, in: range) { Array($0) } == Array(whole[range]), "\(range)")
    }
    #expect(throws: CheckpointError.self) { try file.withBytes(of: tensor, in: 0..<whole.count + 1) { _ in } }
  }

  @Test func `a file of the latest format is read`() throws {
    let file = try open("latest.h5")
    #expect(try numbers("one_chunk", of: file) == (0..<4096).map(Double.init))
    #expect(try numbers("many_chunks", of: file) == (0..<4096).map(Double.init))
  }

  @Test func `a file behind a user block is read`() throws {
    let file = try openDenseCheckpoint(at: fixtures + "/hdf5/user_block.h5")
    #expect(file.tensors == [TensorInfo(name: "weight", dtype: .f32, shape: [64, 64])])
    let tensor = file.tensors[0]
    // Half the first weights: a matrix of orthonormal factors and decaying values has a norm of its own.
    let norm = try file.withDoubles(of: tensor) { $0.reduce(0) { $0 + $1 * $1 } }
    let expected = (0..<64).map { exp(-Double($0) / 8) + 0.01 }.reduce(0) { $0 + $1 * $1 }
    #expect(abs(norm - expected) < 1e-4)
  }

  @Test func `many threads read at once`() async throws {
    let file = try open("layouts.h5")
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for number in 0..<64 {
        group.addTask {
          let name = ["gzip", "contiguous", "big", "all"][number % 4]
          return try self.numbers(name, of: file) == (0..<2400).map(Double.init)
        }
      }
      for try await isEqual in group { #expect(isEqual) }
    }
  }

  // MARK: - Structure

  @Test func `names are paths, once for each object, in the order of creation where it is tracked`() throws {
    let file = try open("structure.h5")
    #expect(
      file.tensors.map(\.name) == [
        "z_first/weight", "z_first/bias", "a_second/deeper/still/weight", "compressed",
      ])
    #expect(file.metadata == ["note": "a café", "fixed": "fixed length"])
  }

  @Test func `Keras kernels are input by output, in every layout of Keras and TensorFlow`() throws {
    for (name, kernel, shape) in [
      ("keras_legacy.h5", "model_weights/second/classifier/second/kernel", [64, 64]),
      ("keras_legacy_weights.h5", "second/classifier/second/kernel", [64, 64]),
      ("keras3.weights.h5", "layers/dense_1/vars/0", [64, 64]),
      ("keras3.keras", "layers/dense_1/vars/0", [64, 64]),
      ("keras3.keras", "layers/conv2d/vars/0", [3, 3, 3, 16]),
      ("split_attributes.h5", "dense_2/dense_2/kernel:0", [64, 64]),
      ("tf_model.h5", "bert/tf_bert/encoder/layer_._0/intermediate/dense/kernel:0", [64, 96]),
    ] {
      let found = try openDenseCheckpoint(at: fixtures + "/hdf5/" + name).tensor(named: kernel)
      #expect(found?.shape == shape, "\(name)")
      #expect(found?.orientation == .inputOutput, "\(name)")
    }
    #expect(try open("structure.h5").tensors.allSatisfy { $0.orientation == .outputInput })
  }

  @Test func `bfloat16 of Keras is read`() throws {
    let narrow = try open("keras3_bfloat16.weights.h5")
    #expect(narrow.tensors.allSatisfy { $0.dtype == .bf16 })
    // Glorot's uniform initialisation of 64 × 64.
    let weights = try numbers("layers/dense_1/vars/0", of: narrow)
    let limit = (6.0 / 128).squareRoot()
    #expect(weights.allSatisfy { abs($0) <= limit * 1.01 } && weights.contains { abs($0) > limit * 0.9 })
  }

  @Test func `an archive holds what its weights file holds`() throws {
    let archive = try open("keras3.keras")
    let weights = try open("keras3.weights.h5")
    #expect(archive.tensors == weights.tensors)
    #expect(archive.files == [fixtures + "/hdf5/keras3.keras"])
    for tensor in weights.tensors { #expect(try archive.bytes(of: tensor.name) == weights.bytes(of: tensor.name)) }
  }

  @Test func `a model folder with tf_model h5 is opened`() throws {
    let folder = try TemporaryFolder()
    try folder.write("{}", to: "model/config.json")
    try folder.write(Data(contentsOf: URL(fileURLWithPath: fixtures + "/hdf5/tf_model.h5")), to: "model/tf_model.h5")
    let checkpoint = try openDenseCheckpoint(at: folder.path + "/model")
    #expect(checkpoint.format == .hdf5)
    #expect(checkpoint.companions == ["config.json"])
    #expect(checkpoint.folder == folder.path + "/model")
  }

  @Test func `Keras variables are known by their names in other files`() {
    #expect(KerasStructure.isVariable(path: "a/kernel:0"))
    #expect(KerasStructure.isVariable(path: "embeddings"))
    #expect(!KerasStructure.isVariable(path: "kernel/weight"))
    #expect(!KerasStructure.isVariable(path: "a:0"))
    #expect(!KerasStructure.isPresent(paths: ["vars/0", "x"]))
    #expect(KerasStructure.isPresent(paths: ["layers/dense/vars/0", "optimizer/vars/12"]))
    #expect(!KerasStructure.isPresent(paths: []))
  }
}
