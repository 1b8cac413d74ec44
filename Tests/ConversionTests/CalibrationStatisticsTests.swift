import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct CalibrationStatisticsTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func statistics(
    _ tensors: [ModelTensor], metadata: [String: String] = ["format": "mpo-statistics", "version": "1"]
  ) throws -> CalibrationStatistics {
    let path = folder.path + "/stats.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: tensors.map(\.info), metadata: metadata)
    for tensor in tensors {
      try tensor.bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) }
    }
    try writer.finish()
    return try CalibrationStatistics(path: path)
  }

  /// `X Xᵀ` of random `X`, rows falling off.
  private func gram(_ name: String, _ size: Int, samples: Int, seed: UInt64) -> ModelTensor {
    let x = ModelTensor.random("x", [samples, size], decay: 0.9, seed: seed).values
    var values = [Double](repeating: 0, count: size * size)
    for sample in 0..<samples {
      for row in 0..<size {
        for column in 0..<size { values[row * size + column] += x[sample * size + row] * x[sample * size + column] }
      }
    }
    return ModelTensor(name, .f64, [size, size], values)
  }

  private func reason(_ tensor: ModelTensor) throws -> String? {
    do {
      _ = try statistics([tensor]).metric(of: "w", rows: 6, columns: 4)
      return nil
    } catch let error as ConversionError {
      return error.description
    }
  }

  @Test func `both sides are read, scales as their squares`() throws {
    let stats = try statistics([
      gram("w.input_gram", 4, samples: 9, seed: 1), ModelTensor("w.output_scale", .f32, [6], [1, 2, 3, 0, 1, 1]),
    ])
    let metric = try #require(try stats.metric(of: "w", rows: 6, columns: 4))
    #expect(metric.rows == .diagonal([1, 4, 9, 0, 1, 1]))
    guard case .full(let side) = metric.columns else {
      Issue.record("no Gram matrix")
      return
    }
    #expect(side.rows == 4)
    #expect(try stats.metric(of: "other", rows: 6, columns: 4) == nil)
    #expect(stats.matrices == ["w"])
  }

  @Test func `what is no second moment of the matrix is refused by name`() throws {
    let size = ModelTensor("w.input_gram", .f32, [6, 6], Array(repeating: 1, count: 36))
    #expect(try reason(size)?.contains("w.input_gram") == true)
    let nan = ModelTensor("w.input_scale", .f32, [4], [1, .nan, 1, 1])
    #expect(try reason(nan)?.contains("NaN") == true)
    let skew = ModelTensor("w.input_gram", .f32, [4, 4], (0..<16).map { $0 % 5 == 0 ? 9 : Double($0) })
    #expect(try reason(skew)?.contains("symmetric") == true)
    let negative = ModelTensor("w.input_gram", .f32, [4, 4], (0..<16).map { $0 % 5 == 0 ? ($0 == 0 ? -1 : 9) : 0 })
    #expect(try reason(negative)?.contains("semi-definite") == true)
    let weights = ModelTensor("w.element_weights", .f32, [6, 4], Array(repeating: -1, count: 24))
    #expect(try reason(weights)?.contains("negative") == true)
    #expect(throws: ConversionError.self) { try statistics([], metadata: ["format": "pt"]) }
    #expect(throws: ConversionError.self) {
      try statistics([], metadata: ["format": "mpo-statistics", "version": "2"])
    }
  }

  @Test(arguments: [Structure.svd, .mpo])
  func `a conversion in the metric has less error in it than a plain one of the same size`(
    structure: Structure
  ) throws {
    let tensor = ModelTensor.random("w", [64, 72], decay: 1, seed: 3)
    let checkpoint = try writeModel([tensor], to: folder.path + "/model.safetensors")
    // Fewer samples than inputs.
    let stats = try statistics([
      gram("w.input_gram", 72, samples: 40, seed: 4), gram("w.output_gram", 64, samples: 90, seed: 5),
    ])
    let network = try SourceNetwork(checkpoint, selection: TensorSelection())
    #expect(try stats.warning(for: network) == nil)

    var errors: [Double] = []
    for metric in [stats, nil] {
      let profile = try network.profile(statistics: metric, jobs: 1).profile
      let plan = try SqueezePlan(profile, budget: .ratio(0.5), structure: structure)
      var converter = Converter(jobs: 1, generator: "test")
      converter.statistics = metric
      let output = try folder.folder("out\(errors.count)")
      let record = try converter.convert(checkpoint, plan: plan, to: output)[0]
      let mpo = try #require(record.mpo)
      #expect((mpo.metricRelativeError != nil) == (metric != nil))
      let cores: MPO<Float> = try MPOCheckpoint(path: output).mpo(record, mpo)
      let measured = try #require(try stats.metric(of: "w", rows: 64, columns: 72))
      errors.append(
        try checkpoint.withBytes(of: tensor.info) { bytes in
          try Float.withElements(bytes, of: .f32) {
            measured.relativeError(of: cores, to: MatrixView($0, rows: 64, columns: 72))
          }
        })
      if let recorded = mpo.metricRelativeError { #expect(abs(recorded - errors[0]) < 1e-9) }
    }
    #expect(errors[0] < 0.8 * errors[1])
  }

  @Test func `matrices without statistics are counted, statistics of another model refused`() throws {
    let tensors = [ModelTensor.random("a", [64, 64], seed: 1), .random("b", [64, 64], seed: 2)]
    let checkpoint = try writeModel(tensors, to: folder.path + "/model.safetensors")
    let network = try SourceNetwork(checkpoint, selection: TensorSelection())
    let ones = Array(repeating: 1.0, count: 64)
    let warning = try statistics([ModelTensor("a.input_scale", .f32, [64], ones)]).warning(for: network)
    #expect(warning?.hasPrefix("1 of 2 matrices have no statistics ('b')") == true)
    let foreign = try statistics([ModelTensor("c.input_scale", .f32, [64], ones)])
    #expect(throws: ConversionError.self) { try foreign.warning(for: network) }
  }
}
