import Checkpoints
import Files
import Foundation
import LinearAlgebra
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

extension ConversionRecipe {
  static func ratio(_ ratio: Double) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(ratio)
    return recipe
  }
}

extension MPO {
  /// A random matrix, decomposed, in the gauge of the operator.
  static func random(_ chain: OperatorRecord, seed: UInt64) throws -> GaugedMPO<Scalar> {
    var generator = SeededGenerator(seed: seed)
    let elements = (0..<chain.rows * chain.columns).map { _ in Scalar(Double.random(in: -1...1, using: &generator)) }
    return try Matrix(rows: chain.rows, columns: chain.columns, elements: elements).withView {
      try MPO(decomposing: $0, shape: chain.shape, bonds: chain.bonds).gauged(chain.gauge)
    }
  }
}

extension CheckpointContents {
  /// Adds a matrix that is the whole of an operator of its own.
  mutating func appendMatrix(
    _ name: String, _ dtype: DType, shape: [Int]? = nil, orientation: TensorInfo.Orientation? = nil,
    _ split: MatrixSplit, bonds: [Int], gauge: Gauge = .canonical, core: DType, central: CentralEncoding? = nil,
    entropies: [Double]? = nil, _ change: (inout BlockMatrix) -> Void = { _ in }
  ) {
    let (chain, cores) = OperatorRecord.ordinary(
      name: name, split, bonds: bonds, gauge: gauge, dtype: core, central: central,
      entropies: entropies)
    var matrix = BlockMatrix(whole: chain)
    change(&matrix)
    append(
      TensorRecord(
        name: name, dtype: dtype, shape: shape ?? [split.rows, split.columns], orientation: orientation,
        storage: .blocks(matrix)), operators: [chain], cores: cores)
  }

  /// Contents of one matrix.
  static func matrix(
    _ dtype: DType, _ split: MatrixSplit, bonds: [Int], gauge: Gauge = .canonical, core: DType,
    central: CentralEncoding? = nil
  ) -> CheckpointContents {
    var contents = CheckpointContents()
    contents.appendMatrix(
      "w", dtype, split, bonds: bonds, gauge: gauge, core: core, central: central)
    return contents
  }
}

/// A small MPO checkpoint with a tensor of every kind.
struct SampleCheckpoint {
  /// Cores as they were stored, by tensor.
  private(set) var floats: [String: MPO<Float>] = [:]
  private(set) var doubles: [String: MPO<Double>] = [:]
  /// Bytes of the dense tensors.
  private(set) var dense: [String: [UInt8]] = [:]
  let contents: CheckpointContents

  static let companions = ["1_Pooling/config.json", "config.json"]

  /// Writes it into an empty folder; the companions come from a folder beside it.
  init(in folder: String, gauge: Gauge = .canonical, maximumShardBytes: Int = 5_000_000_000) throws {
    var contents = CheckpointContents()
    func matrix(
      _ name: String, _ dtype: DType, _ core: DType, rows: Int, columns: Int, _ i: [Int], _ j: [Int], _ bonds: [Int],
      shape: [Int]? = nil, orientation: TensorInfo.Orientation = .outputInput
    ) throws {
      contents.appendMatrix(
        name, dtype, shape: shape ?? [rows, columns], orientation: orientation,
        MatrixSplit(rows: rows, columns: columns, shape: try MPOShape(rowFactors: i, columnFactors: j)), bonds: bonds,
        gauge: gauge, core: core, entropies: bonds.map { Double($0) / 8 }
      ) {
        ($0.relativeError, $0.svdRelativeError, $0.norm) = (0.25, 0.5, 2)
      }
    }
    func dense(_ name: String, _ dtype: DType, _ shape: [Int]) {
      contents.append(
        TensorRecord(name: name, dtype: dtype, shape: shape, orientation: nil, storage: .dense(.plain(dtype))))
    }
    func tied(_ name: String, _ dtype: DType, _ shape: [Int], to other: String) {
      contents.append(
        TensorRecord(name: name, dtype: dtype, shape: shape, orientation: nil, storage: .tied(to: other)))
    }
    try matrix("f32.weight", .f32, .f32, rows: 6, columns: 8, [2, 3], [4, 2], [5])
    dense("f32.bias", .f32, [5])
    try matrix("padded", .f32, .f32, rows: 5, columns: 11, [2, 1, 3], [3, 2, 2], [4, 3], orientation: .inputOutput)
    try matrix("f64", .f64, .f64, rows: 4, columns: 4, [4, 1], [1, 4], [2])
    try matrix("f16", .f16, .f16, rows: 6, columns: 4, [2, 3], [2, 2], [3])
    try matrix("bf16", .bf16, .bf16, rows: 6, columns: 4, [3, 2], [2, 2], [4])
    try matrix("mixed", .bf16, .f32, rows: 6, columns: 4, [3, 2], [2, 2], [4])
    try matrix("kernel", .f32, .bf16, rows: 4, columns: 18, [2, 2], [3, 6], [6], shape: [4, 2, 3, 3])
    tied("tied weight", .f32, [6, 8], to: "f32.weight")
    dense("ids", .i64, [1, 3])
    dense("flags", .bool, [3])
    dense("scalar", .f16, [])
    dense("empty", .f32, [0, 4])
    tied("tied ids", .i64, [1, 3], to: "ids")
    dense("\"ünïcode\\\n", .u8, [2])
    self.contents = contents
    let source = folder + ".source"
    try FileManager.default.createDirectory(atPath: source + "/1_Pooling", withIntermediateDirectories: true)
    for name in Self.companions {
      try Data("{\"name\": \"\(name)\"}\n".utf8).write(to: URL(filePath: source + "/" + name))
    }
    defer { try? FileManager.default.removeItem(atPath: source) }

    let writer = try MPOCheckpointWriter(folder: folder, contents: contents, maximumShardBytes: maximumShardBytes)
    var generator = SeededGenerator(seed: 1)
    for (index, record) in contents.tensors.enumerated().reversed() {
      switch record.storage {
      case .tied: continue
      case .dense:
        let bytes = (0..<record.info.byteCount).map { _ in
          record.dtype == .bool ? UInt8.random(in: 0...1, using: &generator) : .random(in: 0...255, using: &generator)
        }
        self.dense[record.name] = bytes
        try bytes.withUnsafeBytes { try writer.write($0, of: record) }
      case .blocks:
        let chain = try #require(contents.ordinaryOperator(of: record))
        if record.dtype == .f64 {
          doubles[record.name] = try writer.write(MPO<Double>.random(chain, seed: UInt64(index)), of: chain)
        } else {
          floats[record.name] = try writer.write(MPO<Float>.random(chain, seed: UInt64(index)), of: chain)
        }
      }
    }
    try writer.finish(
      generator: "tests 1.2.3",
      source: CheckpointManifest.Source(
        format: .safetensors,
        files: [FileFingerprint(file: "model.safetensors", bytes: 12, sha256: String(repeating: "a", count: 64))],
        metadata: ["format": "pt"]),
      conversion: .ratio(0.5), companions: Self.companions.map(Companion.init(ofModel:)), from: source)
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

  var operators: [[String: Any]] {
    get { object["operators"] as? [[String: Any]] ?? [] }
    set { object["operators"] = newValue }
  }

  var cores: [[String: Any]] {
    get { object["cores"] as? [[String: Any]] ?? [] }
    set { object["cores"] = newValue }
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
