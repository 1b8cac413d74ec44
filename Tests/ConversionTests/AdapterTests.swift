import Checkpoints
import Foundation
import LinearAlgebra
import MPOCheckpoints
import Recipes
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct AdapterTests {
  private let folder: TemporaryFolder
  private let original: any DenseCheckpoint
  private let compressed: any DenseCheckpoint

  init() throws {
    folder = try TemporaryFolder()
    let names = ["a.weight", "b.weight"]
    let whole = names.enumerated().map { ModelTensor.random($1, [80, 64], seed: UInt64($0)) }
    let errors = names.enumerated().map { ModelTensor.random($1, [80, 64], decay: 1, seed: UInt64($0) + 7) }
    let same = [ModelTensor.random("same.weight", [64, 64], seed: 3), ModelTensor.random("a.bias", [80], seed: 4)]
    original = try writeModel(whole + same, to: folder.path + "/original.safetensors")
    let worse = zip(whole, errors).map { whole, error in
      ModelTensor(whole.info.name, .f32, whole.info.shape, zip(whole.values, error.values).map { $0 + 0.1 * $1 })
    }
    compressed = try writeModel(worse + same, to: folder.path + "/compressed.safetensors")
  }

  private func adapted(
    _ rank: Int, _ model: CompressedModel? = nil, statistics: CalibrationStatistics? = nil, to name: String
  ) throws -> (report: Adapter.Summary, tensors: any DenseCheckpoint) {
    let output = try folder.folder(name)
    let report = try Adapter(
      rank: rank, statistics: statistics, options: ConversionOptions(jobs: 2, generator: "tests")
    ).write(for: model ?? .dense(compressed), against: original, to: output, base: "base")
    return (report, try openDenseCheckpoint(at: output + "/adapter_model.safetensors"))
  }

  private func matrix(_ checkpoint: any DenseCheckpoint, _ name: String) throws -> Matrix<Double> {
    let info = try #require(checkpoint.tensor(named: name))
    return Matrix(rows: info.shape[0], columns: info.shape[1], elements: try checkpoint.values(of: name))
  }

  /// `W − Ŵ − B A`.
  private func rest(_ adapter: any DenseCheckpoint, _ layer: String) throws -> Matrix<Double> {
    var rest = try matrix(original, layer + ".weight")
    rest.subtract(try matrix(compressed, layer + ".weight"))
    let prefix = "base_model.model.\(layer)"
    rest.subtract(
      try matrix(adapter, prefix + ".lora_B.weight") * matrix(adapter, prefix + ".lora_A.weight"))
    return rest
  }

  @Test func `an adapter of full rank corrects everything, and only what differs`() throws {
    let (report, adapter) = try adapted(100, to: "full")
    #expect(report.matrices == 2 && report.errorBefore > 0.05 && report.errorAfter < 1e-6)
    #expect(adapter.tensors.count == 4 && adapter.tensors.allSatisfy { $0.dtype == .f32 && $0.shape.contains(64) })
    #expect(try rest(adapter, "a").norm < 1e-5)
  }

  @Test func `the correction is the best of its rank in the metric`() throws {
    // Inputs of which few directions are large.
    let x = ModelTensor.random("x", [200, 64], decay: 0.9, seed: 9).values
    var gram = [Double](repeating: 0, count: 64 * 64)
    for sample in 0..<200 {
      for i in 0..<64 { for j in 0..<64 { gram[i * 64 + j] += x[sample * 64 + i] * x[sample * 64 + j] } }
    }
    let path = folder.path + "/stats.safetensors"
    let tensors = ["a", "b"].map { ModelTensor("\($0).weight.column_gram", .f64, [64, 64], gram) }
    let writer = try SafetensorsWriter(
      path: path, tensors: tensors.map(\.info), metadata: ["format": "mpo-statistics", "version": "2"])
    for tensor in tensors { try tensor.bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) } }
    try writer.finish()
    let statistics = try CalibrationStatistics(path: path)
    let (report, inMetric) = try adapted(4, statistics: statistics, to: "metric")
    let (_, plain) = try adapted(4, to: "plain")
    let metric = try PreparedMetric(
      .sides(rows: .identity, columns: .full(Matrix(rows: 64, columns: 64, elements: gram))))
    for layer in ["a", "b"] {
      let (own, other) = (try rest(inMetric, layer), try rest(plain, layer))
      #expect(metric.squaredNorm(of: own) < 0.8 * metric.squaredNorm(of: other))
      #expect(own.norm > other.norm)
    }
    #expect(report.errorAfter < 0.7 * report.errorBefore)
  }

  @Test(arguments: [false, true])
  func `the Conv1D of GPT-2 has its inputs in the rows`(withStatistics: Bool) throws {
    let names = ["h.0.mlp.c_fc.weight", "lm_head.weight", "wte.weight"]
    func write(_ change: Float, to name: String) throws -> any DenseCheckpoint {
      let path = try folder.folder(name)
      let tensors = names.enumerated().map { ModelTensor.random($1, [64, 96], seed: UInt64($0)) }
      let changed = tensors.map { tensor -> ModelTensor in
        var values = tensor.values
        for index in values.indices { values[index] += Double(change) * Double(index % 7 - 3) * Double(index % 11) }
        return ModelTensor(tensor.info.name, .f32, tensor.info.shape, values)
      }
      _ = try writeModel(changed, to: path + "/model.safetensors")
      try folder.write(#"{"model_type": "gpt2"}"#, to: name + "/config.json")
      return try openDenseCheckpoint(at: path)
    }
    let (whole, worse) = (try write(0, to: "whole"), try write(0.1, to: "worse"))
    var statistics: CalibrationStatistics?
    if withStatistics {
      let path = folder.path + "/scales.safetensors"
      var scales: [ModelTensor] = []
      for name in names {
        for (side, count) in [("row_scale", 64), ("column_scale", 96)] {
          scales.append(ModelTensor("\(name).\(side)", .f32, [count], (0..<count).map { 1 + Double($0 % 3) }))
        }
      }
      let writer = try SafetensorsWriter(
        path: path, tensors: scales.map(\.info),
        metadata: [
          "format": "mpo-statistics", "version": "2", "input_rows": #"["h.0.mlp.c_fc.weight", "wte.weight"]"#,
        ])
      for tensor in scales { try tensor.bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) } }
      try writer.finish()
      statistics = try CalibrationStatistics(path: path)
    }
    let output = try folder.folder("adapter")
    _ = try Adapter(
      rank: 64, statistics: statistics, options: ConversionOptions(jobs: 1, generator: "tests")
    ).write(for: .dense(worse), against: whole, to: output, base: "base")
    let adapter = try openDenseCheckpoint(at: output + "/adapter_model.safetensors")
    #expect(adapter.tensors.count == 4, "the embedding has no place in an adapter")
    let configuration = try String(contentsOfFile: output + "/adapter_config.json", encoding: .utf8)
    #expect(configuration.contains("\"fan_in_fan_out\": true"))
    let (a, b) = (
      try matrix(adapter, "base_model.model.h.0.mlp.c_fc.lora_A.weight"),
      try matrix(adapter, "base_model.model.h.0.mlp.c_fc.lora_B.weight")
    )
    let shapes = [a.rows, a.columns, b.rows, b.columns]
    #expect(shapes == [64, 64, 96, 64])
    var rest = try matrix(whole, names[0])
    rest.subtract(try matrix(worse, names[0]))
    rest.subtract((b * a).transposed())
    #expect(rest.norm < 1e-4)
    let linear = try matrix(adapter, "base_model.model.lm_head.lora_B.weight")
    #expect(linear.rows == 64)
  }

  @Test func `an MPO checkpoint is corrected where it has cores`() throws {
    let mpo = try converted(original, .ratio(0.6), to: try folder.folder("c.mpo"))
    let (report, adapter) = try adapted(8, .operators(mpo), to: "mpo")
    let cores = mpo.contents.tensors.count { !$0.isDense }
    #expect(report.matrices == cores && adapter.tensors.count == 2 * cores)
    #expect(report.errorAfter < report.errorBefore)
    let text = try String(contentsOfFile: folder.path + "/mpo/adapter_config.json", encoding: .utf8)
    let json = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    #expect(json?["r"] as? Int == 8 && json?["peft_type"] as? String == "LORA")
    #expect((json?["target_modules"] as? [String])?.count == cores)
  }

  @Test func `models that do not belong together are refused`() throws {
    let other = try writeModel([ModelTensor.random("a.weight", [64, 80], seed: 1)], to: folder.path + "/o.safetensors")
    expectFailure("o.safetensors", "'a.weight'", "[64, 80]") { _ = try adapted(2, .dense(other), to: "x") }
    expectFailure("original.safetensors", "nothing to correct") { _ = try adapted(2, .dense(original), to: "y") }
  }
}
