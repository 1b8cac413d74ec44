import Checkpoints
import Files
import Foundation
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

@Suite struct MPOCheckpointTests {
  private let temporary: TemporaryFolder
  private let folder: String

  init() throws {
    temporary = try TemporaryFolder()
    folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder)
  }

  /// Opening fails with a line that has all of `parts` in it.
  private func expectRefused(
    _ parts: String..., at location: SourceLocation = #_sourceLocation
  ) {
    do {
      _ = try MPOCheckpoint(path: folder)
      Issue.record("it was accepted", sourceLocation: location)
    } catch {
      let message = "\(error)"
      #expect(!message.contains("\n"), sourceLocation: location)
      #expect(error is MPOCheckpointError || error is CheckpointError || error is FileError, sourceLocation: location)
      for part in [folder] + parts {
        #expect(message.contains(part), "'\(part)' is not in: \(message)", sourceLocation: location)
      }
    }
  }

  private func edit(_ change: (inout ManifestText) throws -> Void) throws {
    try ManifestText.edit(in: folder, change)
  }

  private func url(_ name: String) -> URL { URL(filePath: folder + "/" + name) }

  // MARK: - Folder and manifest

  @Test func `what is no MPO checkpoint is refused as such`() throws {
    let none = temporary.path + "/none"
    #expect(throws: MPOCheckpointError.notAnMPOCheckpoint(path: none, reason: "no such folder")) {
      try MPOCheckpoint(path: none)
    }
    for path in [try temporary.folder("empty"), folder + "/tensors.safetensors"] {
      #expect(!MPOCheckpoint.isPresent(at: path))
      let error = #expect(throws: MPOCheckpointError.self) { try MPOCheckpoint(path: path) }
      #expect("\(try #require(error))".contains("mpo convert"))
    }
  }

  @Test func `a manifest that is not JSON is refused`() throws {
    for text in ["", "{", "[]", "null", "{\"format\": \"mpo-checkpoint\"}", "{\"format\": 1, \"version\": 2}"] {
      try Data(text.utf8).write(to: url("manifest.json"))
      expectRefused("manifest.json")
    }
    try Data([0xFF, 0xFE, 0x00]).write(to: url("manifest.json"))
    expectRefused("manifest.json", "JSON")
  }

  @Test func `another format name is refused`() throws {
    try edit { $0.object["format"] = "something-else" }
    expectRefused("manifest.json", "not the manifest of an MPO checkpoint")
  }

  @Test(arguments: ["2.0", "0.9", "11.0", "", "one"])
  func `another major version is refused before anything else is looked at`(version: String) throws {
    try edit {
      $0.object["version"] = version
      $0.object["tensors"] = ["something", "new"]
    }
    expectRefused("manifest.json", "version \(version)", "update")
  }

  @Test(arguments: ["1.0", "1.7", "1.99", "1"])
  func `another minor version and unknown members are accepted`(version: String) throws {
    try edit {
      $0.object["version"] = version
      $0.object["new member"] = ["a": 1]
      try $0.change("f32.weight", ["new member": [1, 2]])
    }
    #expect(try MPOCheckpoint(path: folder).manifest.version == version)
  }

  @Test func `optional members may be absent or null`() throws {
    try edit {
      for name in ["source", "options"] { $0.object[name] = NSNull() }
      try $0.change(
        "f32.weight",
        ["relative_error": NSNull(), "svd_relative_error": nil, "norm": NSNull(), "entropies": nil, "orientation": nil])
    }
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(checkpoint.manifest.source == nil && checkpoint.manifest.options == nil)
    let mpo = try #require(checkpoint.record(named: "f32.weight")?.mpo)
    #expect(mpo.relativeError == nil && mpo.svdRelativeError == nil && mpo.norm == nil && mpo.entropies == nil)
  }

  @Test func `a manifest with another digest is refused`() throws {
    var text = try String(contentsOf: url("manifest.json"), encoding: .utf8)
    text = text.replacingOccurrences(of: "tests 1.2.3", with: "tests 1.2.4")
    try Data(text.utf8).write(to: url("manifest.json"))
    expectRefused("manifest.json", "was changed after it was written")
  }

  @Test(arguments: ["", "abc", String(repeating: "g", count: 64), "tests 1.2.3"])
  func `a digest that is none is refused`(digest: String) throws {
    var text = try ManifestText(in: folder)
    text.object["manifest_sha256"] = digest
    try JSONSerialization.data(withJSONObject: text.object).write(to: url("manifest.json"))
    expectRefused("manifest.json")
  }

  @Test(arguments: [
    "format", "version", "generator", "manifest_sha256", "shards", "companions", "totals", "tensors",
  ])
  func `a missing member of the manifest is named`(name: String) throws {
    var text = try ManifestText(in: folder)
    text.object[name] = nil
    if name == "manifest_sha256" {
      try JSONSerialization.data(withJSONObject: text.object).write(to: url("manifest.json"))
    } else {
      try text.write()
    }
    expectRefused("manifest.json", "'\(name)'")
  }

  @Test(arguments: ["generator", "shards", "companions", "totals", "tensors"])
  func `a member of the wrong type is named`(name: String) throws {
    try edit { $0.object[name] = 1 }
    expectRefused("manifest.json", "'\(name)'", "wrong type")
  }

  // MARK: - Files

  @Test(arguments: [
    "../a.mpo/config.json", "/etc/hostname", "1_Pooling/../config.json", "./config.json", "1_Pooling//config.json", "",
    "..", ".", "config.json/", "/", "config.json\0",
  ])
  func `a path that leaves the folder is refused`(name: String) throws {
    for list in ["shards", "companions"] {
      let text = try ManifestText(in: folder)
      var changed = text
      let blank = String(repeating: "0", count: 64)
      changed.object[list] = [["name": name, "bytes": 1, "sha256": blank] as [String: Any]]
      try changed.write()
      expectRefused("manifest.json", "outside the folder")
      try text.write()
    }
  }

  @Test(arguments: ["tensors.safetensors", "config.json", "1_Pooling/config.json"])
  func `a missing file is named`(name: String) throws {
    try FileManager.default.removeItem(at: url(name))
    expectRefused(name, "is missing")
  }

  @Test func `a missing folder is named`() throws {
    try FileManager.default.removeItem(at: url("1_Pooling"))
    expectRefused("1_Pooling", "is missing")
  }

  @Test(arguments: ["tensors.safetensors", "config.json", "1_Pooling/config.json"])
  func `a file of another size is named with both sizes`(name: String) throws {
    let bytes = try Data(contentsOf: url(name))
    for changed in [bytes + [0], bytes.dropLast(), Data()] {
      try changed.write(to: url(name))
      expectRefused(name, "\(changed.count) bytes", "\(bytes.count)")
    }
  }

  @Test(arguments: ["tensors.safetensors", "config.json", "1_Pooling/config.json", "1_Pooling"])
  func `a symbolic link is refused, wherever it leads`(name: String) throws {
    let moved = temporary.path + "/moved"
    try FileManager.default.moveItem(at: url(name), to: URL(filePath: moved))
    try FileManager.default.createSymbolicLink(at: url(name), withDestinationURL: URL(filePath: moved))
    expectRefused(name, "a symbolic link")
  }

  @Test func `a folder in place of a file is refused`() throws {
    try FileManager.default.removeItem(at: url("config.json"))
    try FileManager.default.createDirectory(at: url("config.json"), withIntermediateDirectories: true)
    expectRefused("config.json", "a folder, not a file")
  }

  @Test func `a manifest without shards, or with others than are there, is refused`() throws {
    let text = try ManifestText(in: folder)
    try edit { $0.object["shards"] = [Any]() }
    expectRefused("manifest.json", "no shards")
    try text.write()
    try edit { $0.object["shards"] = $0.object["companions"] }
    expectRefused()
    try text.write()
    try FileManager.default.copyItem(at: url("tensors.safetensors"), to: url("more.safetensors"))
    try edit {
      var shards = $0.object["shards"] as? [[String: Any]] ?? []
      shards.append(shards[0].merging(["name": "more.safetensors"]) { $1 })
      $0.object["shards"] = shards
    }
    expectRefused("index.json")
  }

  @Test func `a shard that is no safetensors file is refused`() throws {
    let count = try Data(contentsOf: url("tensors.safetensors")).count
    try Data(repeating: 0x20, count: count).write(to: url("tensors.safetensors"))
    expectRefused("tensors.safetensors")
  }

  @Test func `shards that the index does not list are refused`() throws {
    let sharded = try temporary.folder("sharded.mpo")
    _ = try SampleCheckpoint(in: sharded, maximumShardBytes: 300)
    try ManifestText.edit(in: sharded) {
      var shards = $0.object["shards"] as? [[String: Any]] ?? []
      var companions = $0.object["companions"] as? [[String: Any]] ?? []
      companions.append(shards.removeLast())
      $0.object["shards"] = shards
      $0.object["companions"] = companions
    }
    let error = #expect(throws: MPOCheckpointError.self) { try MPOCheckpoint(path: sharded) }
    #expect("\(try #require(error))".contains("lists other shards"))
  }

  // MARK: - Records

  @Test func `two records of one name are refused`() throws {
    try edit { $0.records.append(try $0.record("ids")) }
    expectRefused("'ids'", "two records")
  }

  @Test func `a record of unknown kind or dtype is refused`() throws {
    let text = try ManifestText(in: folder)
    try edit { try $0.change("ids", ["kind": "sparse"]) }
    expectRefused("tensors[9].kind")
    try text.write()
    try edit { try $0.change("ids", ["dtype": "I128"]) }
    expectRefused("tensors[9].dtype")
    try text.write()
    try edit { try $0.change("ids", ["orientation": "sideways"]) }
    expectRefused("tensors[9].orientation")
  }

  @Test(arguments: [
    "name", "kind", "dtype", "shape", "matrix_shape", "padded_shape", "row_factors", "column_factors", "bonds",
    "full_bonds", "central", "core_dtype",
  ])
  func `a missing member of a record is named`(name: String) throws {
    try edit { try $0.change("f32.weight", [name: nil]) }
    expectRefused("manifest.json", "'tensors[0].\(name)'")
  }

  /// Changes to the record of "padded", 5 × 11 as (2,1,3) × (3,2,2) with bonds 4, 3, and what the message names.
  static let contradictions: [(members: [String: any Sendable], named: String)] = [
    (["shape": [-5, -11]], "shape"),
    (["shape": [1 << 40, 1 << 40]], "shape"),
    (["shape": [5, 12]], "matrix_shape"),
    (["matrix_shape": [11, 5]], "padded_shape"),
    (["matrix_shape": [5, 10]], "matrix_shape"),
    (["matrix_shape": [55]], "matrix_shape"),
    (["matrix_shape": [5, 11, 1]], "matrix_shape"),
    (["matrix_shape": [-5, -11]], "matrix_shape"),
    (["shape": [0, 11], "matrix_shape": [0, 11]], "matrix_shape"),
    (["padded_shape": [5, 11]], "padded_shape"),
    (["padded_shape": [12, 6]], "padded_shape"),
    (["padded_shape": [Int]()], "padded_shape"),
    (["row_factors": [2, 3]], "row_factors"),
    (["row_factors": [6], "column_factors": [12]], "row_factors"),
    (["row_factors": [Int](), "column_factors": [Int]()], "row_factors"),
    (["row_factors": [2, 0, 3]], "row_factors"),
    (["row_factors": [2, -1, -3]], "row_factors"),
    (["row_factors": [1 << 40, 1 << 40, 1]], "row_factors"),
    (["row_factors": [1, 2, 3], "column_factors": [1, 6, 2]], "row_factors"),
    (["row_factors": [2, 1, 4]], "padded_shape"),
    (["bonds": [4]], "bonds"),
    (["bonds": [4, 3, 1]], "bonds"),
    (["bonds": [0, 3]], "bonds"),
    (["bonds": [-4, 3]], "bonds"),
    (["bonds": [7, 6]], "bonds"),
    (["bonds": [6, 7]], "bonds"),
    (["bonds": [1, 3]], "bonds"),
    (["bonds": [4, 1]], "bonds"),
    (["full_bonds": [6, 5]], "full_bonds"),
    (["full_bonds": [6]], "full_bonds"),
    (["central": 0], "central"),
    (["central": -1], "central"),
    (["core_dtype": "I8"], "core_dtype"),
    (["core_dtype": "F8_E4M3"], "core_dtype"),
    (["dtype": "I32"], "core_dtype"),
  ]

  @Test(arguments: contradictions.indices)
  func `a record that contradicts itself is refused`(index: Int) throws {
    let (members, named) = Self.contradictions[index]
    try edit { try $0.change("padded", members) }
    expectRefused("manifest.json", "'tensors[2].\(named)'")
  }

  @Test func `sizes that no computer can hold are refused, not computed`() throws {
    let text = try ManifestText(in: folder)
    // 2^62 elements of a few cores of four numbers each.
    try edit {
      try $0.change(
        "f32.weight",
        [
          "shape": [1 << 31, 1 << 31], "matrix_shape": [1 << 31, 1 << 31], "padded_shape": [1 << 31, 1 << 31],
          "row_factors": Array(repeating: 2, count: 31), "column_factors": Array(repeating: 2, count: 31),
          "bonds": Array(repeating: 1, count: 30),
          "full_bonds": (1...30).map { 1 << (2 * min($0, 31 - $0)) }, "central": 15,
        ])
    }
    expectRefused("manifest.json", "tensors[0].shape")
    try text.write()
    // Sides that the tables of index positions have no room for.
    try edit {
      try $0.change(
        "f32.weight",
        [
          "shape": [1 << 32, 2], "matrix_shape": [1 << 32, 2], "padded_shape": [1 << 32, 2],
          "row_factors": Array(repeating: 2, count: 32), "column_factors": [2] + Array(repeating: 1, count: 31),
          "bonds": Array(repeating: 1, count: 31),
          "full_bonds": (1...31).map { min(1 << ($0 + 1), 1 << (32 - $0)) }, "central": 15,
        ])
    }
    expectRefused("manifest.json", "tensors[0].padded_shape")
  }

  @Test(arguments: [
    (28, "'tied weight': is tied to 'f32.weight', which has another"), (29, "far more elements than its cores"),
  ])
  func `a matrix far too large for its cores is refused`(digits: Int, reason: String) throws {
    // One row factor and one column factor a site, all bonds 1: 4 numbers stand for a factor of 4.
    let rows = digits / 2
    let columns = digits - rows
    try edit {
      try $0.change(
        "f32.weight",
        [
          "shape": [1 << rows, 1 << columns], "matrix_shape": [1 << rows, 1 << columns],
          "padded_shape": [1 << rows, 1 << columns],
          "row_factors": Array(repeating: 2, count: rows) + Array(repeating: 1, count: columns - rows),
          "column_factors": Array(repeating: 2, count: columns), "bonds": Array(repeating: 1, count: columns - 1),
          "full_bonds": (1..<columns).map { 1 << min(2 * $0, digits - 2 * $0) },
          "central": (digits + 1) / 4 - (digits % 4 == 0 ? 1 : 0),
        ])
    }
    expectRefused("tensor", reason)
  }

  @Test func `ties lead to a tensor that is stored, of the same dtype and shape`() throws {
    let text = try ManifestText(in: folder)
    let cases: [(tie: String, to: String, reason: String)] = [
      ("tied ids", "none", "is not there"), ("tied ids", "tied weight", "is tied itself"),
      ("tied ids", "tied ids", "is tied itself"), ("tied ids", "flags", "another dtype or shape"),
      ("tied weight", "padded", "another dtype or shape"), ("tied weight", "f32.weight.cores.0", "is not there"),
    ]
    for (tie, target, reason) in cases {
      try edit { try $0.change(tie, ["tied_to": target]) }
      expectRefused("'\(tie)'", "'\(target)'", reason)
      try text.write()
    }
    try edit { try $0.change("tied ids", ["tied_to": nil]) }
    expectRefused("tensors[13].tied_to")
  }

  // MARK: - Entries

  @Test func `an entry that no record calls for is refused`() throws {
    let text = try ManifestText(in: folder)
    for (name, entry) in [("f16", "f16.cores.0"), ("flags", "flags"), ("bf16", "bf16.cores.0")] {
      try edit { changed in changed.records.removeAll { $0["name"] as? String == name } }
      expectRefused("'\(entry)'", "not in the manifest")
      try text.write()
    }
    // A core more than the factors have.
    try edit { try $0.change("kernel", ["kind": "tied", "tied_to": "f32.bias"]) }
    expectRefused("'kernel'")
  }

  @Test func `an entry that is missing is named`() throws {
    let text = try ManifestText(in: folder)
    try edit { $0.records.append(try $0.record("ids").merging(["name": "more"]) { $1 }) }
    expectRefused("'more'", "is missing")
    try text.write()
    try edit { $0.records.append(try $0.record("f16").merging(["name": "f17"]) { $1 }) }
    expectRefused("'f17.cores.0'", "is missing")
    try text.write()
    // Two records that call for the same entry.
    try edit {
      $0.records.append([
        "name": "f16.cores.1", "kind": "dense", "dtype": "F16", "shape": [3, 3, 2, 1],
      ])
    }
    expectRefused("'f16.cores.1'")
  }

  @Test func `an entry of another shape or dtype is named with both`() throws {
    let text = try ManifestText(in: folder)
    try edit { try $0.change("padded", ["bonds": [4, 4]]) }
    expectRefused("'padded.cores.1'", "F32 [4, 1, 2, 3]", "F32 [4, 1, 2, 4]")
    try text.write()
    try edit { try $0.change("f16", ["core_dtype": "BF16"]) }
    expectRefused("'f16.cores.0'", "F16 [1, 2, 2, 3]", "BF16 [1, 2, 2, 3]")
    try text.write()
    try edit { try $0.change("flags", ["shape": [3, 1]]) }
    expectRefused("'flags'", "BOOL [3]", "BOOL [3, 1]")
    try text.write()
    try edit { try $0.change("flags", ["dtype": "U8"]) }
    expectRefused("'flags'", "BOOL", "U8")
    try text.write()
    try edit { try $0.change("f16", ["row_factors": [3, 2], "central": 0]) }
    expectRefused("'f16.cores.0'", "F16 [1, 2, 2, 3]", "F16 [1, 3, 2, 3]")
  }

  @Test func `names from the manifest can't write over the terminal`() throws {
    try edit { $0.records.append(try $0.record("ids").merging(["name": "\u{1B}[2J\nmore"]) { $1 }) }
    expectRefused("'\\u{1b}[2J\\nmore'")
  }

  // MARK: - The formula

  @Test(arguments: ["f32.weight", "padded", "bf16", "kernel"])
  func `elements are the products of the cores' slices that the format defines`(name: String) throws {
    let checkpoint = try MPOCheckpoint(path: folder)
    let record = try #require(checkpoint.record(named: name))
    let mpo = try #require(record.mpo)
    let cores: MPO<Float> = try checkpoint.mpo(record, mpo)
    let matrix = cores.matrix(rows: mpo.rows, columns: mpo.columns)
    let text = try ManifestText(in: folder).record(name)
    let rowFactors = try #require(text["row_factors"] as? [Int])
    let columnFactors = try #require(text["column_factors"] as? [Int])
    /// The digits of a number in a mixed radix, most significant first.
    func digits(_ number: Int, _ radix: [Int]) -> [Int] {
      var rest = number
      return radix.reversed().map { base in
        defer { rest /= base }
        return rest % base
      }.reversed()
    }
    for row in 0..<mpo.rows {
      for column in 0..<mpo.columns {
        let (i, j) = (digits(row, rowFactors), digits(column, columnFactors))
        var vector: [Double] = [1]
        for (site, core) in cores.cores.enumerated() {
          let (left, right) = (core.leftBond, core.rightBond)
          vector = (0..<right).map { b in
            (0..<left).reduce(0) { sum, a in
              let place = ((a * rowFactors[site] + i[site]) * columnFactors[site] + j[site]) * right + b
              return sum + vector[a] * Double(core.elements[place])
            }
          }
        }
        #expect(vector.count == 1)
        #expect(abs(vector[0] - Double(matrix[row, column])) < 1e-5)
      }
    }
  }
}
