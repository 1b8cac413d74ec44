import Checkpoints
import Files
import Foundation
import LinearAlgebra
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

extension MPO {
  /// A random matrix, decomposed.
  static func random(rows: Int, columns: Int, shape: MPOShape, bonds: [Int], seed: UInt64) throws -> MPO {
    var generator = SeededGenerator(seed: seed)
    let elements = (0..<rows * columns).map { _ in Scalar(Double.random(in: -1...1, using: &generator)) }
    return try Matrix(rows: rows, columns: columns, elements: elements).withView {
      try MPO(decomposing: $0, shape: shape, bonds: bonds)
    }
  }
}

/// A small MPO checkpoint with a tensor of every kind.
struct SampleCheckpoint {
  /// Cores as they were stored, by tensor.
  private(set) var floats: [String: MPO<Float>] = [:]
  private(set) var doubles: [String: MPO<Double>] = [:]
  /// Bytes of the dense tensors.
  private(set) var dense: [String: [UInt8]] = [:]
  let records: [TensorRecord]

  static let companions = ["1_Pooling/config.json", "config.json"]

  private static func matrix(
    _ name: String, _ dtype: DType, _ core: DType, rows: Int, columns: Int, _ i: [Int], _ j: [Int], _ bonds: [Int],
    shape: [Int]? = nil, orientation: TensorInfo.Orientation = .outputInput
  ) throws -> TensorRecord {
    TensorRecord(
      name: name, dtype: dtype, shape: shape ?? [rows, columns], orientation: orientation,
      storage: .mpo(
        MPORecord(
          rows: rows, columns: columns, shape: try MPOShape(rowFactors: i, columnFactors: j), bonds: bonds,
          coreDType: core, relativeError: 0.25, svdRelativeError: 0.5, norm: 2,
          entropies: bonds.map { Double($0) / 8 })))
  }

  /// Writes it into an empty folder; the companions come from a folder beside it.
  init(in folder: String, maximumShardBytes: Int = 5_000_000_000) throws {
    records = [
      try Self.matrix("f32.weight", .f32, .f32, rows: 6, columns: 8, [2, 3], [4, 2], [5]),
      TensorRecord(name: "f32.bias", dtype: .f32, shape: [5], orientation: nil, storage: .dense),
      try Self.matrix(
        "padded", .f32, .f32, rows: 5, columns: 11, [2, 1, 3], [3, 2, 2], [4, 3], orientation: .inputOutput),
      try Self.matrix("f64", .f64, .f64, rows: 4, columns: 4, [4, 1], [1, 4], [2]),
      try Self.matrix("f16", .f16, .f16, rows: 6, columns: 4, [2, 3], [2, 2], [3]),
      try Self.matrix("bf16", .bf16, .bf16, rows: 6, columns: 4, [3, 2], [2, 2], [4]),
      try Self.matrix("mixed", .bf16, .f32, rows: 6, columns: 4, [3, 2], [2, 2], [4]),
      try Self.matrix("kernel", .f32, .bf16, rows: 4, columns: 18, [2, 2], [3, 6], [6], shape: [4, 2, 3, 3]),
      TensorRecord(
        name: "tied weight", dtype: .f32, shape: [6, 8], orientation: nil, storage: .tied(to: "f32.weight")),
      TensorRecord(name: "ids", dtype: .i64, shape: [1, 3], orientation: nil, storage: .dense),
      TensorRecord(name: "flags", dtype: .bool, shape: [3], orientation: nil, storage: .dense),
      TensorRecord(name: "scalar", dtype: .f16, shape: [], orientation: nil, storage: .dense),
      TensorRecord(name: "empty", dtype: .f32, shape: [0, 4], orientation: nil, storage: .dense),
      TensorRecord(name: "tied ids", dtype: .i64, shape: [1, 3], orientation: nil, storage: .tied(to: "ids")),
      TensorRecord(name: "\"ünïcode\\\n", dtype: .u8, shape: [2], orientation: nil, storage: .dense),
    ]
    let source = folder + ".source"
    try FileManager.default.createDirectory(atPath: source + "/1_Pooling", withIntermediateDirectories: true)
    for name in Self.companions {
      try Data("{\"name\": \"\(name)\"}\n".utf8).write(to: URL(filePath: source + "/" + name))
    }
    defer { try? FileManager.default.removeItem(atPath: source) }

    let writer = try MPOCheckpointWriter(folder: folder, records: records, maximumShardBytes: maximumShardBytes)
    var generator = SeededGenerator(seed: 1)
    for (index, record) in records.enumerated().reversed() {
      switch record.storage {
      case .tied: continue
      case .dense:
        let bytes = (0..<record.info.byteCount).map { _ in
          record.dtype == .bool ? UInt8.random(in: 0...1, using: &generator) : .random(in: 0...255, using: &generator)
        }
        dense[record.name] = bytes
        try bytes.withUnsafeBytes { try writer.write($0, of: record) }
      case .mpo(let mpo):
        if record.dtype == .f64 {
          doubles[record.name] = try writer.write(
            MPO<Double>.random(
              rows: mpo.rows, columns: mpo.columns, shape: mpo.shape, bonds: mpo.bonds, seed: UInt64(index)),
            of: record)
        } else {
          floats[record.name] = try writer.write(
            MPO<Float>.random(
              rows: mpo.rows, columns: mpo.columns, shape: mpo.shape, bonds: mpo.bonds, seed: UInt64(index)),
            of: record)
        }
      }
    }
    try writer.finish(
      records: records, generator: "tests 1.2.3",
      source: Manifest.Source(
        format: .safetensors,
        files: [FileFingerprint(file: "model.safetensors", bytes: 12, sha256: String(repeating: "a", count: 64))],
        metadata: ["format": "pt"]),
      options: ["budget": "--ratio 0.5"], companions: Self.companions, from: source)
  }
}

/// `manifest.json` of a checkpoint as generic JSON, for looking at and for changing behind the reader's back.
struct ManifestText {
  let path: String
  var object: [String: Any]

  init(in folder: String) throws {
    path = folder + "/manifest.json"
    let data = try Data(contentsOf: URL(filePath: path))
    object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
  }

  var records: [[String: Any]] {
    get { object["tensors"] as? [[String: Any]] ?? [] }
    set { object["tensors"] = newValue }
  }

  func record(_ name: String) throws -> [String: Any] {
    try #require(records.first { $0["name"] as? String == name })
  }

  /// Replaces members of a record; nil removes one.
  mutating func change(_ name: String, _ members: [String: Any?]) throws {
    let index = try #require(records.firstIndex { $0["name"] as? String == name })
    for (key, value) in members { records[index][key] = value }
  }

  /// Writes it back with the digest it should have.
  func write() throws {
    var object = object
    let blank = String(repeating: "0", count: 64)
    object["manifest_sha256"] = blank
    let options: JSONSerialization.WritingOptions = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    let text = String(decoding: try JSONSerialization.data(withJSONObject: object, options: options), as: UTF8.self)
    let url = URL(filePath: path)
    try Data(text.utf8).write(to: url)
    let digest = try FileFingerprint(ofFileAt: path).sha256
    let place = try #require(text.range(of: "\"manifest_sha256\" : \"\(blank)\""))
    try Data(text.replacingCharacters(in: place, with: "\"manifest_sha256\" : \"\(digest)\"").utf8).write(to: url)
  }

  /// Changes the manifest in a folder and gives it the digest it should have.
  static func edit(in folder: String, _ change: (inout ManifestText) throws -> Void) throws {
    var text = try ManifestText(in: folder)
    try change(&text)
    try text.write()
  }
}
