import Files
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct HDF5WriterTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Runs a program of hdf5-tools; its output, or `nil` when it failed.
  private func run(_ program: String, _ arguments: [String]) throws -> String? {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [program] + arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return process.terminationStatus == 0 ? String(decoding: output, as: UTF8.self) : nil
  }

  /// Copies every tensor of `source` to a writer, last first.
  private func copy(_ source: HDF5Checkpoint, to writer: HDF5Writer) throws {
    for tensor in source.tensors.reversed() {
      try source.withBytes(of: tensor) { try writer.write($0, to: tensor.name) }
    }
    try writer.finish()
  }

  @Test(arguments: [
    "dtypes.h5", "layouts.h5", "structure.h5", "latest.h5", "references.h5", "split_attributes.h5", "tf_model.h5",
    "keras_legacy.h5", "keras_legacy_weights.h5", "keras3.weights.h5", "keras3_bfloat16.weights.h5", "user_block.h5",
  ])
  func `a skeleton and the tensors give the same file`(_ name: String) throws {
    let original = fixtures + "/hdf5/" + name
    let source = try HDF5Checkpoint(path: original)
    let skeleton = try folder.path + "/" + #require(source.skeletonName)
    let output = folder.path + "/" + name
    try source.writeSkeleton(to: skeleton)
    try copy(source, to: HDF5Writer(skeleton: skeleton, output: output, tensors: source.tensors))

    #expect(try run("h5diff", ["-v", original, output]) != nil, "h5diff finds differences")
    // Everything that h5dump knows, the order too: types, attributes, links, creation properties.
    func description(_ path: String) throws -> [Substring]? {
      try run("h5dump", ["-p", path])?.split(separator: "\n").filter {
        // Names and places of the files, and what differs by what libhdf5 packed where.
        !["HDF5 \"", "OFFSET", "SIZE", "EXTERNAL"].contains(where: $0.contains) && !$0.contains("ALLOC_TIME")
          && !$0.contains("DATASET ") && !$0.contains("COMPRESSION)")
      }
    }
    if name != "references.h5" { #expect(try description(original) == description(output)) }
    let copy = try HDF5Checkpoint(path: output)
    #expect(copy.tensors == source.tensors)
    for tensor in source.tensors { #expect(try copy.bytes(of: tensor.name) == source.bytes(of: tensor.name)) }
  }

  @Test func `a skeleton has no room for the tensors`() throws {
    let original = try HDF5Checkpoint(path: fixtures + "/hdf5/keras3.weights.h5")
    try original.writeSkeleton(to: folder.path + "/skeleton.h5")
    let size = try FileStatus(at: folder.path + "/skeleton.h5")?.byteCount
    #expect(size.map { $0 < 25_000 } == true)
  }

  @Test func `the user block comes along`() throws {
    let source = try HDF5Checkpoint(path: fixtures + "/hdf5/user_block.h5")
    try source.writeSkeleton(to: folder.path + "/s.h5")
    try copy(source, to: HDF5Writer(skeleton: folder.path + "/s.h5", output: folder.path + "/o.h5"))
    let start = try MappedFile(path: folder.path + "/o.h5").withBytes(in: 0..<16) { Array($0) }
    #expect(start == Array("#!/a user block\n".utf8))
  }

  @Test func `references lead to the copies`() throws {
    let source = try HDF5Checkpoint(path: fixtures + "/hdf5/references.h5")
    try source.writeSkeleton(to: folder.path + "/s.h5")
    try copy(source, to: HDF5Writer(skeleton: folder.path + "/s.h5", output: folder.path + "/o.h5"))
    let attribute = try run("h5dump", ["-a", "/weight/DIMENSION_LIST", folder.path + "/o.h5"])
    #expect(attribute?.contains("/rows") == true)
  }

  @Test func `an archive is written with the weights exchanged`() throws {
    let source = try HDF5Checkpoint(path: fixtures + "/hdf5/keras3.keras")
    let skeleton = try folder.path + "/" + #require(source.skeletonName)
    #expect(source.skeletonName == "skeleton.keras")
    try source.writeSkeleton(to: skeleton)
    let output = folder.path + "/model.keras"
    try copy(source, to: HDF5Writer(skeleton: skeleton, output: output, tensors: source.tensors, asKerasArchive: true))
    let copy = try HDF5Checkpoint(path: output)
    #expect(copy.tensors == source.tensors)
    for tensor in source.tensors { #expect(try copy.bytes(of: tensor.name) == source.bytes(of: tensor.name)) }
    for entry in ["metadata.json", "config.json"] {
      let expected = try run("unzip", ["-p", fixtures + "/hdf5/keras3.keras", entry])
      #expect(try run("unzip", ["-p", output, entry]) == expected)
      #expect(expected != nil)
    }
    #expect(try folder.names == ["model.keras", "skeleton.keras"])
  }

  @Test func `the weights of an archive become a file of their own`() throws {
    let source = try HDF5Checkpoint(path: fixtures + "/hdf5/keras3.keras")
    try source.writeSkeleton(to: folder.path + "/skeleton.keras")
    let output = folder.path + "/model.weights.h5"
    try copy(source, to: HDF5Writer(skeleton: folder.path + "/skeleton.keras", output: output))
    #expect(try run("h5diff", [fixtures + "/hdf5/keras3.weights.h5", output]) != nil)
  }

  @Test func `a new file has groups for names with slashes, and every element type`() throws {
    let types: [DType] = [.f16, .bf16, .f32, .f64, .i8, .i16, .i32, .i64, .u8, .u16, .u32, .u64, .bool]
    let tensors =
      types.map { TensorInfo(name: "z/y/\($0.rawValue)", dtype: $0, shape: [2, 3]) }
      + [
        TensorInfo(name: "a.b.weight", dtype: .f32, shape: []), TensorInfo(name: "empty", dtype: .f32, shape: [0, 3]),
      ]
    let path = folder.path + "/new.h5"
    let writer = try HDF5Writer(creating: path, tensors: tensors, metadata: ["format": "pt", "note": "café"])
    for tensor in tensors {
      try (0..<tensor.byteCount).map { UInt8($0 % 2) }.withUnsafeBytes { try writer.write($0, to: tensor.name) }
    }
    try writer.finish()
    let file = try HDF5Checkpoint(path: path)
    #expect(file.tensors == tensors)
    #expect(file.metadata == ["format": "pt", "note": "café"])
    for tensor in tensors { #expect(try file.bytes(of: tensor.name) == (0..<tensor.byteCount).map { UInt8($0 % 2) }) }
    #expect(try run("h5dump", ["-d", "/z/y/F16", path])?.contains("16-bit little-endian floating-point") == true)
  }

  @Test func `names and types that HDF5 can't hold are errors`() throws {
    func reason(_ tensors: [TensorInfo]) -> String? {
      message { try HDF5Writer(creating: folder.path + "/x.h5", tensors: tensors) }
    }
    for name in ["", "/a", "a//b", "a/", ".", "a/./b", "a\0b"] {
      #expect(
        reason([TensorInfo(name: name, dtype: .f32, shape: [1])])?.contains("can't be the path") == true, "\(name)")
    }
    #expect(
      reason([TensorInfo(name: "a", dtype: .f8E4M3, shape: [1])])?.contains("no element type for F8_E4M3") == true)
    #expect(
      reason([TensorInfo(name: "a", dtype: .f32, shape: [1]), TensorInfo(name: "a/b", dtype: .f32, shape: [1])])?
        .contains("tensor 'a/b'") == true)
    #expect(
      reason([TensorInfo(name: "a", dtype: .f32, shape: [1]), TensorInfo(name: "a", dtype: .f32, shape: [1])])?
        .contains("declared twice") == true)
  }

  @Test func `what is written must have been declared, once, in full`() throws {
    let tensors = [TensorInfo(name: "a", dtype: .u8, shape: [2]), TensorInfo(name: "b", dtype: .u8, shape: [2])]
    let writer = try HDF5Writer(creating: folder.path + "/x.h5", tensors: tensors)
    func write(_ count: Int, _ name: String) -> String? {
      message { try [UInt8](repeating: 1, count: count).withUnsafeBytes { try writer.write($0, to: name) } }
    }
    #expect(write(2, "c")?.contains("not declared") == true)
    #expect(write(3, "a")?.contains("2 were declared") == true)
    #expect(write(2, "a") == nil)
    #expect(write(2, "a")?.contains("written twice") == true)
    #expect(message { try writer.finish() }?.contains("tensor 'b': it was declared but not written") == true)
    #expect(write(2, "b") == nil)
    try writer.finish()
    #expect(message { try writer.finish() } != nil)
  }

  @Test func `a skeleton of another model is refused`() throws {
    let source = try HDF5Checkpoint(path: fixtures + "/hdf5/tf_model.h5")
    try source.writeSkeleton(to: folder.path + "/s.h5")
    let others = source.tensors.dropLast() + [TensorInfo(name: "x", dtype: .f32, shape: [1])]
    let reason = message {
      try HDF5Writer(skeleton: folder.path + "/s.h5", output: folder.path + "/o.h5", tensors: Array(others))
    }
    #expect(reason?.contains("belongs to another model") == true)
    #expect(
      message {
        try HDF5Writer(skeleton: folder.path + "/s.h5", output: folder.path + "/o.keras", asKerasArchive: true)
      }?.contains("not a Keras archive") == true)
  }

  @Test func `an atomic output can be written although it is locked`() throws {
    let output = try AtomicOutput(at: folder.path + "/model.h5", kind: .file, replacing: false)
    let writer = try HDF5Writer(
      creating: output.temporaryPath, tensors: [TensorInfo(name: "a", dtype: .u8, shape: [1])])
    try [UInt8(7)].withUnsafeBytes { try writer.write($0, to: "a") }
    try writer.finish()
    try output.commit()
    #expect(try HDF5Checkpoint(path: folder.path + "/model.h5").bytes(of: "a") == [7])
  }
}
