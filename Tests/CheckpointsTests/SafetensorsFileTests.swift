import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct SafetensorsFileTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func open(_ bytes: [UInt8]) throws -> SafetensorsFile {
    try SafetensorsFile(path: folder.write(bytes, to: "a.safetensors"))
  }

  // MARK: - What is read

  @Test func `tensors are in the order of their data and hold its bytes`() throws {
    let file = try open(
      safetensorsBytes(
        header: """
          {"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},\
          "__metadata__":{"format":"pt","note":"caf\\u00e9 \\ud83d\\ude00"},\
          "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   \n
          """, dataByteCount: 7))
    #expect(
      file.tensors == [
        TensorInfo(name: "a", dtype: .f32, shape: []), TensorInfo(name: "b", dtype: .u8, shape: [3]),
      ])
    #expect(file.metadata == ["format": "pt", "note": "café 😀"])
    #expect(try file.bytes(of: "a") == [0, 1, 2, 3])
    #expect(try file.bytes(of: "b") == [4, 5, 6])
    #expect(try file.withBytes(of: file.tensors[1], in: 1..<3) { Array($0) } == [5, 6])
    #expect(file.tensor(named: "c") == nil)
    #expect(file.companions.isEmpty && file.folder == nil && file.files == [file.path])
  }

  @Test func `a file without tensors, zero-sized tensors and scalars are read`() throws {
    #expect(try open(safetensorsBytes(header: "{}")).tensors.isEmpty)
    let file = try open(
      safetensorsBytes(
        header: """
          {"scalar":{"dtype":"I64","shape":[],"data_offsets":[0,8]},\
          "empty":{"dtype":"F64","shape":[3,0,2],"data_offsets":[8,8]},\
          "front":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}
          """, dataByteCount: 8))
    #expect(file.tensors.map(\.name) == ["front", "scalar", "empty"])
    #expect(try file.bytes(of: "empty").isEmpty)
    #expect(try file.bytes(of: "scalar").count == 8)
  }

  @Test func `names may contain anything`() throws {
    let file = try open(
      safetensorsBytes(
        header: #"{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"../\n\u001b[31m/\"":"#
          + #"{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, dataByteCount: 2))
    #expect(file.tensors.map(\.name) == ["", "../\n\u{1B}[31m/\""])
  }

  @Test func `a tensor of another checkpoint is refused`() throws {
    let file = try open(
      safetensorsBytes(header: #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, dataByteCount: 4))
    #expect(throws: CheckpointError.self) {
      try file.withBytes(of: TensorInfo(name: "a", dtype: .u8, shape: [40])) { _ in }
    }
    #expect(throws: CheckpointError.self) { try file.withBytes(of: file.tensors[0], in: 2..<5) { _ in } }
  }

  @Test func `packed types count their bits`() throws {
    let file = try open(
      safetensorsBytes(
        header: """
          {"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]},\
          "b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[3,6]}}
          """, dataByteCount: 6))
    #expect(try file.bytes(of: "b") == [3, 4, 5])
  }

  // MARK: - What is refused

  /// A header with the one tensor `a` of this record, the bytes of data behind it, and a part of the message.
  @Test(arguments: [
    (#"{"dtype":"F33","shape":[1],"data_offsets":[0,4]}"#, 4, "its dtype 'F33' is unknown"),
    (#"{"dtype":"f32","shape":[1],"data_offsets":[0,4]}"#, 4, "its dtype 'f32' is unknown"),
    (#"{"dtype":7,"shape":[1],"data_offsets":[0,4]}"#, 4, "its dtype is not a string"),
    (#"{"shape":[1],"data_offsets":[0,4]}"#, 4, "its dtype is missing"),
    (#"{"dtype":"F32","data_offsets":[0,4]}"#, 4, "its shape is missing"),
    (#"{"dtype":"F32","shape":[1]}"#, 4, "its data_offsets are missing"),
    (#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}"#, 4, "unknown field 'x'"),
    (#"{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}"#, 4, "'dtype' occurs twice"),
    (#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, 4, "its shape has the negative number -1"),
    (#"{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}"#, 4, "its shape has an entry that is not a 64-bit integer"),
    (#"{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}"#, 4, "not a 64-bit integer"),
    (#"{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}"#, 4, "its shape has an entry"),
    (#"{"dtype":"F32","shape":1,"data_offsets":[0,4]}"#, 4, "its shape is not an array"),
    (#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#, 4, "overflows"),
    (#"{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}"#, 0, "overflows"),
    (#"{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,4]}"#, 4, "overflows"),
    (#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#, 4, "begins at 4, behind its end at 0"),
    (#"{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}"#, 4, "its data_offsets has the negative number -4"),
    (#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, 4, "ends at byte 8 but the file holds 4 bytes"),
    (#"{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}"#, 4, "its data_offsets has more than 2 entries"),
    (#"{"dtype":"F32","shape":[1],"data_offsets":[0]}"#, 4, "its data_offsets are not two numbers"),
    (#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#, 4, "take 8 bytes but its data has 4"),
    (#"{"dtype":"F32","shape":[],"data_offsets":[0,0]}"#, 0, "take 4 bytes but its data has 0"),
    (#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#, 1, "take 12 bits, which is not a whole number of bytes"),
    (#"[]"#, 0, "its record is an array, not an object"),
    (#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#, 8, "a hole of 4 bytes lies between it and the start"),
  ])
  func `a malformed record is refused`(record: String, dataByteCount: Int, expected: String) throws {
    let bytes = safetensorsBytes(header: #"{"a":\#(record)}"#, dataByteCount: dataByteCount)
    let found = try #require(message { try open(bytes) })
    #expect(found.contains(expected), "\(found)")
    #expect(found.contains("a.safetensors") && found.contains("a"))
  }

  @Test(arguments: [
    ("", "does not start with '{'"),
    (" {}", "does not start with '{'"),
    ("[]", "does not start with '{'"),
    ("{", "a name was expected"),
    ("{} x", "something follows the JSON value"),
    ("{}{}", "something follows the JSON value"),
    (#"{"a":1}"#, "its record is a number, not an object"),
    (#"{"a":{},}"#, "its dtype is missing"),
    (#"{"__metadata__":{},}"#, "a name was expected"),
    (#"{"__metadata__":[]}"#, "__metadata__ is an array, not an object of strings"),
    (#"{"__metadata__":{"n":1}}"#, "__metadata__ maps 'n' to a number, not to a string"),
    (#"{"__metadata__":{"n":"1","n":"2"}}"#, "'n' occurs twice"),
    (#"{"__metadata__":{},"__metadata__":{}}"#, "'__metadata__' occurs twice"),
    (#"{"\ud800":{}}"#, "lone surrogate"),
    ("{\"a\nb\":{}}", "control character"),
  ])
  func `a malformed header is refused`(header: String, expected: String) throws {
    let found = try #require(message { try open(safetensorsBytes(header: header)) })
    #expect(found.contains(expected), "\(found)")
  }

  @Test func `duplicate names, overlaps, holes and trailing bytes are refused`() throws {
    func tensor(_ name: String, _ begin: Int, _ end: Int) -> String {
      #""\#(name)":{"dtype":"U8","shape":[\#(end - begin)],"data_offsets":[\#(begin),\#(end)]}"#
    }
    func refusal(_ tensors: [String], _ size: Int) -> String? {
      message { try open(safetensorsBytes(header: "{\(tensors.joined(separator: ","))}", dataByteCount: size)) }
    }
    #expect(refusal([tensor("a", 0, 4), tensor("a", 4, 8)], 8)?.contains("'a' occurs twice") == true)
    #expect(
      refusal([tensor("a", 0, 4), tensor("b", 3, 8)], 8)?.contains("1 bytes before the end of tensor 'a'") == true)
    #expect(refusal([tensor("a", 0, 4), tensor("b", 0, 4)], 4)?.contains("overlap") == true)
    #expect(refusal([tensor("a", 0, 4), tensor("b", 6, 8)], 8)?.contains("'b': a hole of 2 bytes") == true)
    #expect(refusal([tensor("a", 0, 4), tensor("b", 4, 8)], 9)?.contains("last 1 bytes belong to no tensor") == true)
    #expect(refusal([], 3)?.contains("last 3 bytes belong to no tensor") == true)
    #expect(refusal([tensor("a", 0, 4), tensor("z", 2, 2)], 4)?.contains("overlap") == true)
    #expect(refusal([tensor("a", 0, 4), tensor("b", 4, 8)], 8) == nil)
    // Many names are looked up in another way than few.
    let many = (0..<40).map { tensor("t\($0)", $0, $0 + 1) }
    #expect(refusal(many, 40) == nil)
    #expect(refusal(many + [tensor("t3", 40, 41)], 41)?.contains("'t3' occurs twice") == true)
  }

  @Test func `a length field that lies is refused`() throws {
    #expect(message { try open([]) }?.contains("the file is empty") == true)
    #expect(message { try open([1, 0, 0, 0, 0, 0, 0]) }?.contains("7 bytes, too few") == true)
    let header = Array("{}".utf8)
    #expect(
      message { try open(safetensorsBytes(header: header, length: 3)) }?.contains("reaches beyond the file of 10 bytes")
        == true)
    for length in [100_000_001, UInt64(Int64.max), UInt64.max] {
      #expect(
        message { try open(safetensorsBytes(header: header, length: length)) }?.contains("more than the 100000000")
          == true)
    }
    #expect(message { try open(safetensorsBytes(header: header, length: 0)) }?.contains("'{'") == true)
  }

  @Test func `a header that is not UTF-8 is refused`() throws {
    for name: [UInt8] in [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE2, 0x82]] {
      let header = Array("{\"".utf8) + name + Array("\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}".utf8)
      #expect(message { try open(safetensorsBytes(header: header)) }?.contains("not valid UTF-8") == true)
    }
  }

  @Test func `deep nesting is refused before it costs the stack`() throws {
    let bomb = "{\"__metadata__\":" + String(repeating: "[", count: 1_000_000)
    #expect(throws: CheckpointError.self) { try open(safetensorsBytes(header: bomb)) }
    let text = Array(String(repeating: "[", count: 1_000_000).utf8)
    #expect(throws: JSONError.self) { try text.withUnsafeBytes { try JSONValue.parse($0) } }
  }

  @Test func `every truncation and every flipped bit of a header is an error or a valid file`() throws {
    let header = """
      {"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},\
      "b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}
      """
    let bytes = safetensorsBytes(header: header, dataByteCount: 11)
    for count in 0..<bytes.count {
      #expect(throws: CheckpointError.self, "\(count) bytes") { try open(Array(bytes[..<count])) }
    }
    for bit in 0..<(8 + header.utf8.count) * 8 {
      var changed = bytes
      changed[bit / 8] ^= 1 << (bit % 8)
      do {
        let file = try open(changed)
        #expect(file.tensors.reduce(0) { $0 + $1.byteCount } == 11)
      } catch is CheckpointError {}
    }
  }

  @Test func `messages show control characters of names as escapes`() throws {
    let header = #"{"a\n\u001b[2J\u202e":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#
    let found = try #require(message { try open(safetensorsBytes(header: header)) })
    #expect(found.contains(#"'a\n\u{1b}[2J\u{202e}'"#), "\(found)")
    let long = CheckpointError.malformed(file: "f", tensor: String(repeating: "x", count: 100_000), reason: "r")
    #expect("\(long)".count < 300)
  }

  // MARK: - Files by the real writer

  @Test(arguments: DType.allCases)
  func `the file of the safetensors package is read`(dtype: DType) throws {
    let file = try SafetensorsFile(path: "\(fixtures)/dtypes/\(dtype.rawValue).safetensors")
    let matrix = try #require(file.tensor(named: "matrix"))
    #expect(matrix.dtype == dtype && matrix.shape == [4, 6])
    let bytes = try file.bytes(of: "matrix")
    #expect(bytes.count == 24 * dtype.bitWidth / 8)
    switch dtype {
    case .f16, .bf16, .f32, .f64:
      let expected = (0..<24).map { Float($0 - 12) }
      #expect(try file.withFloats(of: matrix) { Array($0) } == expected)
      #expect(try file.withDoubles(of: matrix) { Array($0) } == expected.map(Double.init))
    case .i64:
      let values = bytes.withUnsafeBytes { bytes in
        (0..<24).map { bytes.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self) }
      }
      #expect(values == (0..<24).map { $0 - 12 })
      #expect(throws: CheckpointError.self) { try file.withFloats(of: matrix) { _ in } }
    case .u8: #expect(bytes == Array(0..<24))
    case .bool: #expect(bytes == (0..<24).map { $0 % 3 == 0 ? 1 : 0 })
    case .f4, .f6E2M3, .f6E3M2, .f8E5M2, .f8E4M3, .f8E5M2FNUZ, .f8E4M3FNUZ, .f8E8M0:
      #expect(bytes == bytes.indices.map { UInt8((37 * $0 + 11) % 251) })
    default: break
    }
    if dtype != .f6E2M3, dtype != .f6E3M2 {
      #expect(file.metadata == ["dtype": dtype.rawValue])
      #expect(file.tensor(named: "empty")?.shape == [0, 4])
      #expect(file.tensor(named: "vector")?.shape == [8])
    }
  }

  @Test func `the memory of a used range is given back`() throws {
    let size = 64 << 20
    let path = folder.path + "/large.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: [TensorInfo(name: "w", dtype: .u8, shape: [size])])
    try [UInt8](repeating: 1, count: size).withUnsafeBytes { try writer.write($0, to: "w") }
    try writer.finish()
    let file = try SafetensorsFile(path: path)
    func mappedPages() throws -> Int {
      // The pages of this process that belong to files.
      let fields = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
      return try #require(Int(fields[2]))
    }
    let before = try mappedPages()
    let (sum, during) = try file.withBytes(of: file.tensors[0]) { bytes in
      (bytes.reduce(0) { $0 &+ Int($1) }, try mappedPages())
    }
    #expect(sum == size)
    #expect(during - before > size / 4096 / 2)
    #expect(try mappedPages() - before < size / 4096 / 2)
  }

  @Test func `a file that shrinks while it is open is an error`() throws {
    let path = try folder.write(
      safetensorsBytes(
        header: #"{"a":{"dtype":"U8","shape":[20000],"data_offsets":[0,20000]}}"#, dataByteCount: 20000),
      to: "a.safetensors")
    let file = try SafetensorsFile(path: path)
    #expect(truncate(path, 9000) == 0)
    #expect(message { try file.bytes(of: "a") }?.contains("it has shrunk") == true)
  }
}
