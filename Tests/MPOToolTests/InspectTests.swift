import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite struct InspectTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"
  private let output: String

  init() throws {
    temporary = try TemporaryFolder()
    output = temporary.path + "/out.mpo"
    let result = try Tool.run("convert", bert, "-o", output, "--ratio", "0.6", "--structure", "chain")
    try #require(result.status == 0)
  }

  @Test func `a dense checkpoint as JSON`() throws {
    let object = try Tool.run("inspect", bert, "--json").json
    #expect(
      Set(object.keys) == ["format", "files", "companions", "metadata", "parameters", "bytes", "tensors"])
    #expect(object["format"] as? String == "safetensors")
    #expect(object["parameters"] as? Int == 529_957)
    #expect(object["metadata"] as? [String: String] == ["format": "pt"])
    #expect((object["companions"] as? [String])?.contains("1_Pooling/config.json") == true)
    let tensors = try #require(object["tensors"] as? [[String: Any]])
    #expect(tensors.count == 40)
    #expect(tensors.allSatisfy { Set($0.keys) == ["name", "dtype", "shape", "orientation", "parameters"] })
    #expect(tensors[0]["name"] as? String == "embeddings.position_ids")
    #expect(tensors[0]["dtype"] as? String == "I64" && tensors[0]["shape"] as? [Int] == [1, 64])
  }

  @Test func `an MPO checkpoint as JSON is its manifest`() throws {
    let object = try Tool.run("inspect", output, "--json").json
    let data = try Data(contentsOf: URL(filePath: output + "/manifest.json"))
    let manifest = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(NSDictionary(dictionary: object) == NSDictionary(dictionary: manifest))
  }

  @Test func `one tensor, with its spectra`() throws {
    let name = "encoder.layer.0.output.dense.weight"
    for path in [bert, output] {
      let object = try Tool.run("inspect", path, "--tensor", name, "--spectrum", "--json").json
      #expect(object["name"] as? String == name && object["shape"] as? [Int] == [128, 256])
      let spectra = try #require(object["spectra"] as? [[Double]])
      #expect(spectra.map(\.count) == [8, 64, 32, 4])
      if path == output {
        #expect(object["kind"] as? String == "mpo")
        let operators = try #require(object["operators"] as? [[String: Any]])
        #expect(operators.count == 1 && (operators[0]["bonds"] as? [Int])?.count == 4)
        #expect((object["cores"] as? [[String: Any]])?.count == 5)
      } else {
        #expect(Set(object.keys) == ["name", "dtype", "shape", "orientation", "parameters", "spectra"])
      }
      let text = try Tool.run("inspect", path, "--tensor", name, "--spectrum")
      #expect(text.status == 0 && text.messages.isEmpty)
      #expect(text.output.contains("bond 4, 4 singular values"))
    }
    let plain = try Tool.run("inspect", output, "--tensor", name)
    for part in ["kind", "mpo", "factors", "bonds", "central", "auxiliary", "SVD error", "entropies"] {
      #expect(plain.output.contains(part))
    }
  }

  @Test func `the table has a line for every matrix with its error and that of SVD`() throws {
    let text = try Tool.run("inspect", output).output
    let object = try Tool.run("inspect", output, "--json").json
    let records = try #require(object["tensors"] as? [[String: Any]])
    let operators = try #require(object["operators"] as? [[String: Any]])
    for record in records where record["kind"] as? String == "mpo" {
      let name = try #require(record["name"] as? String)
      let line = try #require(text.split(separator: "\n").first { $0.hasPrefix(name) })
      let error = try #require(record["relative_error"] as? Double)
      #expect(line.contains(String(format: error < 1e-3 ? "%.1e" : "%.4f", error)))
      let chain = try #require(operators.first { $0["name"] as? String == name })
      let bonds = try #require(chain["bonds"] as? [Int])
      #expect(line.contains(bonds.map(String.init).joined(separator: ",")))
    }
    for part in ["tensors ", "parameters ", "trainable ", "bytes ", "error ", "the same as"] {
      #expect(text.contains(part))
    }
  }

  @Test func `verification as JSON`() throws {
    let alone = try Tool.run("verify", output, "--json").json
    #expect(Set(alone.keys) == ["path", "holds", "problems", "relative_errors"])
    #expect(alone["path"] as? String == output && alone["holds"] as? Bool == true)
    #expect((alone["problems"] as? [String])?.isEmpty == true)
    let compared = try Tool.run("verify", output, "--against", bert, "--json").json
    #expect(compared["holds"] as? Bool == true)
    let errors = try #require(compared["relative_errors"] as? [String: Double])
    let records = try #require(Tool.run("inspect", output, "--json").json["tensors"] as? [[String: Any]])
    let matrices = records.filter { $0["kind"] as? String == "mpo" }
    #expect(!matrices.isEmpty)
    for matrix in matrices {
      let name = try #require(matrix["name"] as? String)
      let error = try #require(errors[name])
      #expect(abs(error - (try #require(matrix["relative_error"] as? Double))) < 1e-9)
    }
  }

  @Test func `a statistics file, and the metric it gave a checkpoint`() throws {
    let name = "encoder.layer.0.output.dense.weight"
    let statistics = temporary.path + "/stats.safetensors"
    let scale = TensorInfo(name: name + ".column_scale", dtype: .f32, shape: [256])
    let writer = try SafetensorsWriter(
      path: statistics, tensors: [scale],
      metadata: [
        "format": "mpo-statistics", "version": "2", "samples": "7", "tokens": "1234",
        "description": "of my\u{1b} texts",
      ])
    try (0..<256).map { Float(1 + $0 % 5) }.withUnsafeBytes { try writer.write($0, to: scale.name) }
    try writer.finish()

    let text = try Tool.run("inspect", statistics).output
    #expect(text.contains("\(name)  outputs: identity  inputs: scale 256\n"))
    for part in ["of my\\u{1b} texts", "matrices    1\n", "samples     7\n", "tokens      1,234\n"] {
      #expect(text.contains(part), "'\(part)' is not in: \(text)")
    }
    #expect(try Tool.run("inspect", statistics, "--top", "3").messages.contains("--top has no effect"))
    let object = try Tool.run("inspect", statistics, "--json").json
    #expect((object["metadata"] as? [String: String])?["samples"] == "7")

    let converted = try Tool.run(
      "convert", bert, "-o", output, "--ratio", "0.6", "--calibration", statistics, "--force")
    #expect(converted.status == 0 && converted.messages.contains("have no statistics"))
    let record = try #require(
      (try Tool.run("inspect", output, "--json").json["tensors"] as? [[String: Any]])?
        .first { $0["name"] as? String == name })
    let error = try #require(record["metric_relative_error"] as? Double)
    let table = try Tool.run("inspect", output).output
    #expect(table.contains("metric: of my\\u{1b} texts (SHA-256 ") && table.contains("in metric"))
    #expect(table.contains(String(format: "%.4f", error)))
    #expect(try Tool.run("inspect", output, "--tensor", name).output.contains("in metric   "))
  }
}
