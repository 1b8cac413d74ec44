import Checkpoints
import Files
import Foundation
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
    let writer = try SafetensorsWriter(path: path, tensors: tensors.map(\.info), metadata: CheckpointMetadata(metadata))
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

  private let w = TensorInfo(name: "w", dtype: .f32, shape: [6, 4])

  private func reason(_ tensor: ModelTensor) throws -> String? {
    do {
      let stats = try statistics([tensor])
      #expect(stats.matrices == ["w"])
      _ = try stats.preparedMetric(of: w, rows: 6, columns: 4)
      return nil
    } catch let error as ConversionError {
      return error.description
    }
  }

  @Test(arguments: [("row", "column"), ("output", "input")])
  func `both sides are read by both names, scales as their squares`(rows: String, columns: String) throws {
    let stats = try statistics([
      gram("w.\(columns)_gram", 4, samples: 9, seed: 1), ModelTensor("w.\(rows)_scale", .f32, [6], [1, 2, 3, 0, 1, 1]),
    ])
    guard case .sides(let rowSide, .full(let columnSide)) = try #require(try stats.metric(of: w, rows: 6, columns: 4))
    else {
      Issue.record("no Gram matrix")
      return
    }
    #expect(rowSide == .diagonal([1, 4, 9, 0, 1, 1]))
    #expect(columnSide.rows == 4)
    let other = TensorInfo(name: "other", dtype: .f32, shape: [6, 4])
    #expect(try stats.metric(of: other, rows: 6, columns: 4) == nil)
    #expect(try stats.preparedMetric(of: other, rows: 6, columns: 4) == nil)
    #expect(stats.matrices == ["w"])
    #expect(stats.entries.map(\.kind) == [.gram(.columns), .scale(.rows)])
  }

  /// The ridges on a 6 × 4 matrix whose sides are both the identity as a Gram matrix.
  private func ridges(
    _ prefixes: (rows: String, columns: String), _ orientation: TensorInfo.Orientation, metadata: [String: String]
  ) throws -> [Double] {
    func identity(_ name: String, _ size: Int) -> ModelTensor {
      ModelTensor(name, .f32, [size, size], (0..<(size * size)).map { $0 % (size + 1) == 0 ? 1 : 0 })
    }
    let stats = try statistics(
      [identity("w.\(prefixes.rows)_gram", 6), identity("w.\(prefixes.columns)_gram", 4)],
      metadata: ["format": "mpo-statistics"].merging(metadata) { $1 })
    let tensor = TensorInfo(name: "w", dtype: .f32, shape: [6, 4], orientation: orientation)
    guard case .sides(let rows, let columns)? = try stats.preparedMetric(of: tensor, rows: 6, columns: 4) else {
      return []
    }
    let sites = stats.ridges(of: tensor, for: .sites)
    return [rows.ridge, columns.ridge, sites.rows, sites.columns]
  }

  @Test func `ridges go by what is an input, not by what is a column`() throws {
    let (columnsRead, rowsRead) = ([1e-3, 1e-4, 0.3, 1e-4], [1e-4, 1e-3, 1e-4, 0.3])
    let (old, new) = (("output", "input"), ("row", "column"))
    #expect(try ridges(old, .outputInput, metadata: ["version": "1"]) == columnsRead)
    #expect(try ridges(old, .inputOutput, metadata: ["version": "1"]) == rowsRead)
    #expect(try ridges(new, .outputInput, metadata: ["version": "2"]) == columnsRead)
    #expect(try ridges(new, .inputOutput, metadata: ["version": "2"]) == rowsRead)
    // What the file says stands above what the format of the model says.
    #expect(try ridges(new, .outputInput, metadata: ["version": "2", "input_rows": #"["v", "w"]"#]) == rowsRead)
    #expect(try ridges(new, .inputOutput, metadata: ["version": "2", "input_rows": "[]"]) == columnsRead)
  }

  @Test func `ridges of the file stand above the defaults and below what is asked for`() throws {
    let metadata = ["version": "2", "output_ridge": "0.1", "input_ridge": "0.01"]
    #expect(try ridges(("row", "column"), .outputInput, metadata: metadata) == [0.1, 0.01, 0.1, 0.01])
    var stats = try statistics([], metadata: ["format": "mpo-statistics", "output_ridge": "0.1"])
    stats.outputRidge = 0.5
    #expect(stats.ridges(of: w, for: .lowRank) == (rows: 0.5, columns: 1e-4))
    for ridge in ["-1", "nan", "inf", "many"] {
      #expect(throws: ConversionError.self) {
        try statistics([], metadata: ["format": "mpo-statistics", "output_ridge": ridge])
      }
    }
  }

  @Test func `a triangle stands for its matrix, and a side of another matrix for one that is the same`() throws {
    let full = gram("w.column_gram", 4, samples: 9, seed: 1)
    let triangle = (0..<4).flatMap { row in (row..<4).map { full.values[row * 4 + $0] } }
    let metadata = ["format": "mpo-statistics", "version": "2"]
    let packed = try statistics(
      [ModelTensor("w.column_gram", .f64, [10], triangle)],
      metadata: metadata.merging(["same": #"{"v.column_gram": "w.column_gram"}"#]) { $1 })
    let v = TensorInfo(name: "v", dtype: .f32, shape: [5, 4])
    let expected = Metric(rows: .identity, columns: .full(Matrix(rows: 4, columns: 4, elements: full.values)))
    #expect(try packed.metric(of: w, rows: 6, columns: 4) == expected)
    #expect(try packed.metric(of: v, rows: 5, columns: 4) == expected)
    #expect(packed.matrices == ["v", "w"])
    #expect(packed.entries.map(\.tensor) == ["w.column_gram", "w.column_gram"])
    #expect(packed.entries.map(\.shape) == [[4, 4], [4, 4]])
    var kept = packed
    try kept.keepPreparedMetrics(passes: 2, in: folder.path)
    func root(_ stats: CalibrationStatistics, _ tensor: TensorInfo) throws -> CholeskyFactor? {
      guard case .sides(_, let columns)? = try stats.preparedMetric(of: tensor, rows: tensor.shape[0], columns: 4),
        case .triangular(let factor) = columns.factor
      else { return nil }
      return factor
    }
    for tensor in [w, v, v, w] {
      #expect(try root(kept, tensor) == #require(try root(packed, tensor)))
    }
    #expect(throws: ConversionError.self) {
      try statistics([ModelTensor("w.column_gram", .f64, [9], Array(triangle.prefix(9)))], metadata: metadata)
        .metric(of: w, rows: 6, columns: 4)
    }
    for same in ["[]", #"{"v.column_gram": 1}"#, #"{"v.column_gram": "x.column_gram"}"#, #"{"w.row_gram": "#] {
      #expect(throws: ConversionError.self) {
        try statistics([full], metadata: metadata.merging(["same": same]) { $1 })
      }
    }
  }

  @Test func `a file that says one thing twice, or something unreadable, is refused`() throws {
    let ones = Array(repeating: 1.0, count: 4)
    let twice = try statistics([
      ModelTensor("w.column_scale", .f32, [4], ones), ModelTensor("w.input_scale", .f32, [4], ones),
    ])
    #expect(throws: ConversionError.self) { try twice.metric(of: w, rows: 6, columns: 4) }
    #expect(throws: ConversionError.self) { try twice.preparedMetric(of: w, rows: 6, columns: 4) }
    for list in ["w", "{}", "[1]", "[\"w\""] {
      #expect(throws: ConversionError.self) {
        try statistics([], metadata: ["format": "mpo-statistics", "version": "2", "input_rows": list])
      }
    }
  }

  @Test func `a singular second moment needs a ridge and the message says so`() throws {
    var stats = try statistics([
      ModelTensor("w.column_gram", .f32, [4, 4], (0..<16).map { $0 % 5 == 0 && $0 < 10 ? 1 : 0 })
    ])
    #expect(try stats.preparedMetric(of: w, rows: 6, columns: 4) != nil)
    stats.inputRidge = 0
    do {
      _ = try stats.preparedMetric(of: w, rows: 6, columns: 4)
      Issue.record("a factor of a singular matrix")
    } catch let error as ConversionError {
      #expect(error.description.contains("choose a ridge of at least") && error.description.contains("w.column_gram"))
    }
  }

  @Test func `a large ridge does not hide that a matrix is not a second moment`() throws {
    var stats = try statistics([
      ModelTensor("w.column_gram", .f32, [4, 4], (0..<16).map { $0 % 5 == 0 ? ($0 == 0 ? -1 : 9) : 0 })
    ])
    stats.inputRidge = 10
    #expect(throws: ConversionError.self) { try stats.preparedMetric(of: w, rows: 6, columns: 4) }
  }

  @Test func `the identity is that of the file`() throws {
    let stats = try statistics([ModelTensor("w.column_scale", .f32, [1], [1])])
    let expected = try FileFingerprint(ofFileAt: stats.path)
    #expect(try stats.identity == expected)
  }

  @Test func `kept metrics are those that would be prepared again`() throws {
    // Threads of BLAS may sum in another order.
    BLASThreads.use(1)
    let shared = gram("q.column_gram", 70, samples: 40, seed: 4)
    var stats = try statistics([
      shared, gram("q.row_gram", 64, samples: 90, seed: 5), shared.named("k.column_gram"),
      gram("v.column_gram", 70, samples: 90, seed: 6), gram("v.row_gram", 64, samples: 90, seed: 7),
    ])
    let fresh = stats
    try stats.keepPreparedMetrics(passes: 2, in: folder.path)
    let values = ModelTensor.random("x", [64, 70], seed: 8).values
    let matrix = Matrix(rows: 64, columns: 70, elements: values.map { Float($0) })
    for name in ["q", "k", "v"] {
      let tensor = TensorInfo(name: name, dtype: .f32, shape: [64, 70])
      func metric(_ statistics: CalibrationStatistics) throws -> LayerMetric {
        try #require(try LayerMetric(of: tensor, rows: 64, columns: 70, statistics))
      }
      let expected = try metric(fresh)
      let first = try metric(stats)
      #expect(try matrix.withView { try first.singularValues(of: $0) == expected.singularValues(of: $0) })
      let second = try metric(stats)
      let mpo = try #require(try matrix.withView { try second.lowRank(of: $0, rank: 9) })
      #expect(try matrix.withView { try expected.lowRank(of: $0, rank: 9) } == mpo)
      let errors = matrix.withView { view in [second, expected].map { $0.relativeError(of: mpo, to: view) } }
      #expect(errors[0] == errors[1] && errors[0] > 0)
    }
    #expect(try folder.names == ["stats.safetensors"])
  }

  @Test func `second moments of the same bytes are prepared once`() throws {
    let shared = gram("q.column_gram", 4, samples: 40, seed: 4)
    let stats = try statistics([shared, shared.named("k.column_gram"), gram("v.column_gram", 4, samples: 9, seed: 6)])
    for (passes, expected) in [(1, ["q", "v", "v"]), (2, ["q", "v"])] {
      let kept = try PreparedMetrics(of: stats, passes: passes, folder: folder.path)
      var prepared: [String] = []
      for name in ["q", "k", "v", "v"] {
        _ = try kept.root(of: name + ".column_gram", ridge: 1e-4) {
          prepared.append(name)
          return try MetricRoot(of: .full(.identity(4)), ridge: 1e-4)
        }
      }
      #expect(prepared == expected)
    }
  }

  @Test func `without room for a temporary file metrics are prepared again`() throws {
    let stats = try statistics([gram("w.column_gram", 4, samples: 9, seed: 1)])
    let kept = try PreparedMetrics(of: stats, passes: 2, folder: folder.path + "/not there")
    var count = 0
    for _ in 0..<2 {
      _ = try kept.root(of: "w.column_gram", ridge: 0) {
        count += 1
        return try MetricRoot(of: .full(.identity(4)), ridge: 0)
      }
    }
    #expect(count == 2)
  }

  @Test func `the variance of element weights, and what of it is within rows`() throws {
    let rows = ModelTensor("r.element_weights", .f32, [2, 3], [1, 1, 1, 3, 3, 3])
    let within = ModelTensor("w.element_weights", .f32, [2, 2], [0, 2, 2, 0])
    let zero = ModelTensor("z.element_weights", .f32, [2, 2], [0, 0, 0, 0])
    let stats = try statistics([rows, within, zero, gram("g.column_gram", 4, samples: 9, seed: 1)])
    func variance(_ name: String) throws -> [Double]? {
      try stats.elementWeightVariance(of: name).map { [$0.relative, $0.withinRows] }
    }
    #expect(try variance("r") == [0.25, 0] && variance("w") == [1, 1] && variance("z") == [0, 0])
    #expect(try variance("g") == nil)
  }

  @Test func `what is not a second moment of the matrix is refused by name`() throws {
    let size = ModelTensor("w.input_gram", .f32, [6, 6], Array(repeating: 1, count: 36))
    #expect(try reason(size)?.contains("w.input_gram") == true)
    let nan = ModelTensor("w.input_scale", .f32, [4], [1, .nan, 1, 1])
    #expect(try reason(nan)?.contains("NaN") == true)
    let skew = ModelTensor("w.input_gram", .f32, [4, 4], (0..<16).map { $0 % 5 == 0 ? 9 : Double($0) })
    #expect(try reason(skew)?.contains("symmetric") == true)
    for name in ["w.row_gram", "w.output_gram"] {
      let negative = ModelTensor(name, .f32, [6, 6], (0..<36).map { $0 % 7 == 0 ? ($0 == 0 ? -1 : 9) : 0 })
      #expect(try reason(negative)?.contains("semi-definite") == true)
    }
    let negative = ModelTensor("w.input_gram", .f32, [4, 4], (0..<16).map { $0 % 5 == 0 ? ($0 == 0 ? -1 : 9) : 0 })
    #expect(try reason(negative)?.contains("semi-definite") == true)
    let weights = ModelTensor("w.element_weights", .f32, [6, 4], Array(repeating: -1, count: 24))
    #expect(try reason(weights)?.contains("negative") == true)
    #expect(throws: ConversionError.self) { try statistics([], metadata: ["format": "pt"]) }
    #expect(throws: ConversionError.self) {
      try statistics([], metadata: ["format": "mpo-statistics", "version": "3"])
    }
  }

  @Test(arguments: [MatrixStructure.svd, .chain])
  func `a conversion in the metric has less error in it than a plain one of the same size`(
    structure: MatrixStructure
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
      var recipe = ConversionRecipe()
      (recipe.structure, recipe.budget) = (structure, .ratio(0.5))
      let profile = try network.profile(for: recipe, statistics: metric, jobs: 1).profile
      let plan = try SqueezePlan(profile, budget: .ratio(0.5), structure: structure)
      var converter = Converter(jobs: 1, generator: "test")
      converter.statistics = metric
      let output = try folder.folder("out\(errors.count)")
      let record = try converter.convert(checkpoint, plan: plan, to: output).contents.tensors[0]
      let matrix = try #require(record.blocks)
      #expect((matrix.metricRelativeError != nil) == (metric != nil))
      let cores: MPO<Float> = try MPOCheckpoint(path: output).chain(MPOCheckpoint(path: output).operator("w"))
      let measured = try #require(try stats.preparedMetric(of: tensor.info, rows: 64, columns: 72))
      errors.append(
        try checkpoint.withBytes(of: tensor.info) { bytes in
          try Float.withElements(bytes, of: .f32) {
            measured.relativeError(of: cores, to: MatrixView($0, rows: 64, columns: 72))
          }
        })
      if let recorded = matrix.metricRelativeError { #expect(abs(recorded - errors[0]) < 1e-9) }
    }
    #expect(errors[0] < 0.8 * errors[1])
  }

  @Test func `statistics of a model with another configuration are refused`() throws {
    let model = try writeModel([.random("a", [96, 64], seed: 1)], to: folder.path + "/model.safetensors")
    let network = try SourceNetwork(model, selection: TensorSelection())
    let config = folder.path + "/config.json"
    func warning(_ sha256: String?) throws -> String? {
      let metadata = ["format": "mpo-statistics", "version": "2"].merging(sha256.map { ["config_sha256": $0] } ?? [:]) {
        $1
      }
      let ones = [Double](repeating: 1, count: 64)
      return try statistics([ModelTensor("a.column_scale", .f32, [64], ones)], metadata: metadata).warning(for: network)
    }
    let other = String(repeating: "0", count: 64)
    #expect(try warning(other) == nil)  // there is no configuration to compare with
    try Data("{}".utf8).write(to: URL(filePath: config))
    #expect(try warning(nil) == nil)
    #expect(try warning(FileFingerprint(ofFileAt: config).sha256) == nil)
    let error = #expect(throws: ConversionError.self) { try warning(other) }
    let text = try #require(error).description
    #expect(text.contains("another config.json than \(config)") && text.contains("make the statistics again"))
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
