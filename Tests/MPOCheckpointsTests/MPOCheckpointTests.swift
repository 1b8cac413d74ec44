import Checkpoints
import Files
import Foundation
import LinearAlgebra
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

  @Test func `what is not an MPO checkpoint is refused as such`() throws {
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

  @Test(arguments: ["3.0", "0.9", "11.0", "", "one"])
  func `another major version is refused before anything else is looked at`(version: String) throws {
    try edit {
      $0.object["version"] = version
      $0.object["tensors"] = ["something", "new"]
    }
    expectRefused("manifest.json", "version \(version)", "update")
  }

  @Test(arguments: ["2.0", "2.7", "2.99", "2"])
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
      for name in ["source", "conversion"] { $0.object[name] = NSNull() }
      try $0.change(
        "f32.weight", ["relative_error": NSNull(), "svd_relative_error": nil, "norm": NSNull(), "orientation": nil])
      $0.operators[0]["entropies"] = NSNull()
    }
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(checkpoint.manifest.source == nil && checkpoint.manifest.conversion == nil)
    let matrix = try #require(checkpoint.record(named: "f32.weight")?.blocks)
    #expect(matrix.relativeError == nil && matrix.svdRelativeError == nil && matrix.norm == nil)
    #expect(checkpoint.contents.operators[0].entropies == nil)
  }

  @Test func `a manifest with another digest is refused`() throws {
    var text = try String(contentsOf: url("manifest.json"), encoding: .utf8)
    text = text.replacingOccurrences(of: "tests 1.2.3", with: "tests 1.2.4")
    try Data(text.utf8).write(to: url("manifest.json"))
    expectRefused("manifest.json", "was changed after it was written")
  }

  @Test(arguments: ["", "abc", String(repeating: "g", count: 64), "tests 1.2.3"])
  func `an invalid digest is refused`(digest: String) throws {
    var text = try ManifestText(in: folder)
    text.object["manifest_sha256"] = digest
    try JSONSerialization.data(withJSONObject: text.object).write(to: url("manifest.json"))
    expectRefused("manifest.json")
  }

  @Test(arguments: [
    "format", "version", "generator", "manifest_sha256", "shards", "companions", "totals", "tensors", "operators",
    "cores",
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

  @Test(arguments: ["generator", "shards", "companions", "totals", "tensors", "operators"])
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

  @Test func `a shard that is not a safetensors file is refused`() throws {
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

  // MARK: - Names

  @Test func `names from the manifest can't write over the terminal`() throws {
    try edit { $0.records.append(try $0.record("ids").merging(["name": "\u{1B}[2J\nmore"]) { $1 }) }
    expectRefused("'\\u{1b}[2J\\nmore'")
  }

  // MARK: - The formula

  @Test(arguments: ["f32.weight", "padded", "bf16", "kernel"])
  func `elements are the products of the cores' slices that the format defines`(name: String) throws {
    let checkpoint = try MPOCheckpoint(path: folder)
    let record = try #require(checkpoint.record(named: name))
    let mpo = try #require(checkpoint.contents.ordinaryOperator(of: record))
    let cores: MPO<Float> = try checkpoint.chain(mpo)
    let matrix: Matrix<Float> = try checkpoint.matrix(of: #require(record.blocks))
    let text = try #require(ManifestText(in: folder).operators.first { $0["name"] as? String == name })
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
