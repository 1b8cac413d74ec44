import Checkpoints
import Files
import Foundation
import LinearAlgebra
import TestSupport
import Testing

@testable import MPOCheckpoints

/// The list of malformed checkpoints that the readers of all languages share: fixtures/malformed, made and described by
/// tools/fixtures/malformed_fixtures.py.
@Suite struct MalformedCheckpointTests {
  private static let folder = fixtures + "/malformed"

  static let cases: [MalformedCase] = {
    guard let data = FileManager.default.contents(atPath: folder + "/cases.json"),
      let list = try? JSONSerialization.jsonObject(with: data) as? [String: [[String: Any]]]
    else { return [] }
    return (list["cases"] ?? []).compactMap(MalformedCase.init)
  }()

  @Test func `the list is there`() {
    #expect(Self.cases.count > 100)
    #expect(Set(Self.cases.map(\.check)) == Set(0...11))
  }

  @Test(arguments: cases)
  func `a malformed checkpoint is refused, and the message says why`(_ malformed: MalformedCase) throws {
    let temporary = try TemporaryFolder()
    let folder = temporary.path + "/base.mpo"
    try FileManager.default.copyItem(atPath: Self.folder + "/base.mpo", toPath: folder)
    try malformed.apply(to: folder)
    func problem() throws -> String? {
      do {
        let checkpoint = try MPOCheckpoint(path: folder)
        guard malformed.at == "read" else { return nil }
        if let damage = try (checkpoint.damagedFiles() + checkpoint.damagedEntries()).first {
          return damage.description
        }
        for matrix in checkpoint.contents.tensors.compactMap(\.blocks) {
          _ = try checkpoint.matrix(of: matrix, as: Float.self)
        }
        return nil
      } catch let error as MPOCheckpointError {
        return error.description
      } catch let error as CheckpointError {
        return error.description
      } catch let error as FileError {
        return error.description
      }
    }
    let message = try #require(try problem(), "it was accepted")
    #expect(!message.contains("\n"))
    let expression = try Regex(malformed.error).ignoresCase()
    #expect(message.contains(expression), "'\(malformed.error)' is not in: \(message)")
  }

  @Test func `shared cores, bases, ranges, sums and encodings give the matrices they stand for`() throws {
    let checkpoint = try MPOCheckpoint(path: Self.folder + "/base.mpo")
    #expect(try checkpoint.damagedFiles() == [] && checkpoint.damagedEntries() == [])
    let expected = try SafetensorsFile(path: Self.folder + "/base-matrices.safetensors")
    for record in checkpoint.contents.tensors {
      let holder = try checkpoint.holder(of: record)
      guard record.dtype.isDecomposable, let tensor = expected.tensor(named: record.name) else { continue }
      let wanted = try expected.withBytes(of: tensor) { try Float.withElements($0, of: .f32) { Array($0) } }
      let found: [Float]
      if let matrix = holder.blocks {
        found = try checkpoint.matrix(of: matrix, as: Float.self).elements
      } else {
        found = try checkpoint.withDenseBytes(of: holder) {
          try Float.withElements($0, of: holder.dtype) { Array($0) }
        }
      }
      #expect(found == wanted, "\(record.name)")
    }
    #expect(!checkpoint.contents.sharedCores.isEmpty)
  }
}

/// One way to damage the valid checkpoint.
struct MalformedCase: Sendable, CustomTestStringConvertible {
  let name: String
  let check: Int
  let at: String
  let error: String
  /// The whole case, as JSON.
  private let json: Data

  var testDescription: String { name }

  init?(_ object: [String: Any]) {
    guard let name = object["name"] as? String, let check = object["check"] as? Int, let at = object["at"] as? String,
      let error = object["error"] as? String, let json = try? JSONSerialization.data(withJSONObject: object)
    else { return nil }
    (self.name, self.check, self.at, self.error, self.json) = (name, check, at, error, json)
  }

  func apply(to folder: String) throws {
    let object = try #require(JSONSerialization.jsonObject(with: json) as? [String: Any])
    if let text = object["manifest_text"] as? String {
      return try Data(text.utf8).write(to: URL(filePath: folder + "/manifest.json"))
    }
    for edit in object["bytes"] as? [[String: Any]] ?? [] { try change(edit, in: folder) }
    var text = try ManifestText(in: folder)
    if object["refresh"] as? Bool == true {
      var shards = text.object["shards"] as? [[String: Any]] ?? []
      for index in shards.indices {
        let found = try FileFingerprint(ofFileAt: folder + "/" + #require(shards[index]["name"] as? String))
        (shards[index]["bytes"], shards[index]["sha256"]) = (found.bytes, found.sha256)
      }
      text.object["shards"] = shards
    }
    var manifest: Any = text.object
    for edit in object["edits"] as? [[String: Any]] ?? [] {
      let path = try #require(edit["path"] as? String).split(separator: "/")[...]
      manifest = try changed(manifest, path, to: edit["value"])
    }
    text.object = try #require(manifest as? [String: Any])
    if object["sign"] as? Bool == false {
      try JSONSerialization.data(withJSONObject: text.object).write(to: URL(filePath: text.path))
    } else {
      try text.write()
    }
  }

  /// JSON with another value at a path; nil removes what is there.
  private func changed(_ object: Any, _ path: ArraySlice<Substring>, to value: Any?) throws -> Any {
    let key = try #require(path.first)
    let rest = path.dropFirst()
    if var members = object as? [String: Any] {
      let member = String(key)
      members[member] = rest.isEmpty ? value : try changed(#require(members[member]), rest, to: value)
      return members
    }
    var list = try #require(object as? [Any])
    if key == "-" { return try list + [#require(value)] }
    let index = try #require(Int(key))
    if !rest.isEmpty {
      list[index] = try changed(list[index], rest, to: value)
    } else if let value {
      list[index] = value
    } else {
      list.remove(at: index)
    }
    return list
  }

  private func change(_ edit: [String: Any], in folder: String) throws {
    let url = URL(filePath: folder + "/" + (try #require(edit["file"] as? String)))
    var data = try Data(contentsOf: url)
    if let size = edit["truncate"] as? Int { data = data.prefix(size) }
    if let found = edit["find"] as? String, let replacement = edit["replace"] as? String {
      data.replaceSubrange(try #require(data.range(of: Data(found.utf8))), with: Data(replacement.utf8))
    }
    if let offset = edit["offset"] as? Int, let hex = edit["hex"] as? String {
      let bytes = stride(from: 0, to: hex.count, by: 2).compactMap { UInt8(hex.dropFirst($0).prefix(2), radix: 16) }
      data.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }
    try data.write(to: url)
  }
}
