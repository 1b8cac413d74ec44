import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Synchronization
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion
@testable import Squeezing

@Suite struct ByteBudgetTests {
  private let temporary: TemporaryFolder
  private let source: any DenseCheckpoint

  init() throws {
    temporary = try TemporaryFolder()
    source = try writeModel(
      [
        .random("steep", [96, 160], decay: 0.9, seed: 1), .random("flat", [160, 96], seed: 2),
        .random("wide", [64, 256], decay: 0.97, seed: 3), .random("bias", [33], seed: 4),
      ], to: temporary.path + "/model.safetensors")
  }

  private let matrixBytes = 4 * (96 * 160 + 160 * 96 + 64 * 256)

  private func statistics() throws -> CalibrationStatistics {
    let path = temporary.path + "/stats.safetensors"
    var tensors: [ModelTensor] = []
    for (index, tensor) in source.tensors.enumerated() where tensor.shape.count == 2 {
      for (side, size) in [("row", tensor.shape[0]), ("column", tensor.shape[1])] {
        let x = ModelTensor.random("x", [size, 2 * size], decay: 0.95, seed: UInt64(50 + index)).values
        var values = [Double](repeating: 0, count: size * size)
        for a in 0..<size {
          for b in 0..<size {
            values[a * size + b] = (0..<2 * size).reduce(0) { $0 + x[a * 2 * size + $1] * x[b * 2 * size + $1] }
          }
        }
        tensors.append(ModelTensor("\(tensor.name).\(side)_gram", .f32, [size, size], values))
      }
    }
    let writer = try SafetensorsWriter(
      path: path, tensors: tensors.map(\.info),
      metadata: CheckpointMetadata(["format": "mpo-statistics", "version": "2"]))
    for tensor in tensors { try tensor.bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) } }
    try writer.finish()
    return try CalibrationStatistics(path: path)
  }

  private func converted(
    _ recipe: ConversionRecipe, _ statistics: CalibrationStatistics? = nil, to name: String
  ) throws -> MPOCheckpoint {
    var recipe = recipe
    if let statistics { recipe.metric = try statistics.identity() }
    let folder = try temporary.folder(name)
    try convert(
      source, recipe: recipe, statistics: statistics, to: folder,
      options: ConversionOptions(jobs: 2, generator: "tests"))
    return try MPOCheckpoint(path: folder)
  }

  private func recipe(_ budget: Budget) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    recipe.budget = budget
    return recipe
  }

  private func bytes(_ checkpoint: MPOCheckpoint) -> Int {
    checkpoint.contents.cores.reduce(0) { $0 + $1.storedBytes }
      + checkpoint.contents.tensors.reduce(0) { $0 + ($1.shape.count == 2 ? $1.array?.storedBytes ?? 0 : 0) }
  }

  @Test(arguments: [false, true])
  func `no more bytes are stored than asked for, hardly fewer, and more bytes lose less`(hasStatistics: Bool) throws {
    let statistics = hasStatistics ? try statistics() : nil
    var last = Double.infinity
    for (index, share) in [0.07, 0.12, 0.2, 0.4].enumerated() {
      let checkpoint = try converted(recipe(.matrixBytes(.share(share))), statistics, to: "\(index).mpo")
      let limit = Int(share * Double(matrixBytes))
      #expect((Int(0.96 * Double(limit))...limit).contains(bytes(checkpoint)), "\(bytes(checkpoint)) of \(limit)")
      let blocks = checkpoint.contents.tensors.compactMap(\.blocks)
      let error = blocks.reduce(0.0) { sum, blocks in
        let error = (hasStatistics ? blocks.metricRelativeError : blocks.relativeError) ?? .infinity
        return sum + error * error
      }
      #expect(error < last)
      last = error
      #expect(checkpoint.contents.cores.contains { $0.encoding.integers != nil })
      #expect(try Verifier(jobs: 2).verify(checkpoint, against: source).problems.isEmpty)
    }
  }

  @Test func `the whole checkpoint has at most the bytes that were asked for, as a share or a size`() throws {
    let all = source.tensors.reduce(0) { $0 + $1.byteCount }
    for limit in [Budget.ByteLimit.share(0.2), .count(all / 5)] {
      let checkpoint = try converted(recipe(.bytes(limit)), to: "\(limit).mpo")
      let stored = bytes(checkpoint) + 4 * 33
      #expect(stored <= all / 5 && stored > all / 6)
    }
    expectFailure("0.001 of the bytes can't be reached", "the smallest possible size is", "choose a larger size") {
      _ = try converted(recipe(.bytes(.share(0.001))), to: "small.mpo")
    }
    expectFailure("10B of the matrices' bytes can't be reached") {
      _ = try converted(recipe(.matrixBytes(.count(10))), to: "smaller.mpo")
    }
  }

  @Test func `a plan counts the bytes that are stored, in every form`() throws {
    let shape = MPOShape.lowRank(rows: 70, columns: 300)
    for gauge in [Gauge.compact, .canonical] {
      for rank in [5, 16, 40, 70] {
        for integers in [nil] + ["int8", "int3/64", "int2/128"].map({ IntegerGroups($0) }) {
          let form = OperatorForm(shape: shape, bonds: [rank], gauge: gauge, integers: integers)
          let (chain, cores) = OperatorRecord.ordinary(
            name: "w", MatrixSplit(rows: 70, columns: 300, shape: shape), bonds: [rank], gauge: gauge, dtype: .bf16)
          let stored = CoreEncodings(central: integers.map { .integers($0) }, auxiliary: integers.map { .integers($0) })
            .applied(to: cores).reduce(0) { $0 + $1.storedBytes }
          #expect(
            form.storedBytes(elementBytes: 2) == stored, "\(gauge) \(rank) \(chain.name) \(integers?.description ?? "")"
          )
        }
      }
    }
  }

  @Test func `rules say what cores are stored in, the last one counts`() throws {
    var recipe = recipe(.matrixRatio(0.5))
    recipe.structure = .svd
    recipe.encodings = [
      EncodingRule(glob: "*", encoding: .integers(try #require(IntegerGroups("int4")))),
      EncodingRule(glob: "*", cores: .auxiliary, encoding: .plain(.bf16)),
      EncodingRule(glob: "flat", encoding: .plain(.f16)),
    ]
    let checkpoint = try converted(recipe, to: "a.mpo")
    for core in checkpoint.contents.cores {
      let expected =
        core.name.hasPrefix("flat") ? "F16" : core.role == .central ? "int4" : "BF16"
      #expect(core.encoding.description == expected, "\(core.name)")
    }
    // What stays dense is rounded too.
    recipe.budget = .matrixRatio(1)
    recipe.encodings = [EncodingRule(glob: "steep", encoding: .integers(try #require(IntegerGroups("int8"))))]
    let dense = try converted(recipe, to: "b.mpo")
    #expect(dense.record(named: "steep")?.blocks?.relativeError.map { $0 < 0.01 && $0 > 0 } == true)
    #expect(dense.record(named: "flat")?.isDense == true)
    recipe.encodings[0].glob = "none"
    expectFailure("'none'", "matches no") { _ = try converted(recipe, to: "c.mpo") }
  }

  @Test func `a recipe with bytes and rules is written to YAML and read again`() throws {
    var recipe = recipe(.bytes(.count(60_000_000)))
    #expect(try ConversionRecipe(yaml: recipe.yaml(), path: "r.yaml") == recipe)
    recipe.budget = .matrixBytes(.share(0.3))
    #expect(try ConversionRecipe(yaml: recipe.yaml(), path: "r.yaml") == recipe)
    recipe.budget = .ratio(0.5)
    recipe.encodings = [
      EncodingRule(glob: "a.*", cores: .central, encoding: .integers(try #require(IntegerGroups("int3/64"))))
    ]
    #expect(try ConversionRecipe(yaml: recipe.yaml(), path: "r.yaml") == recipe)
    for text in ["60MB", "1.5 GiB", "0.5", "7B"] {
      #expect(Budget.ByteLimit(text.replacingOccurrences(of: " ", with: "")) != nil)
    }
    for text in ["", "MB", "-3MB", "0", "1e9", "5 bananas"] { #expect(Budget.ByteLimit(text) == nil) }
    #expect(Budget.ByteLimit("1.5KiB") == .count(1536))
  }

  @Test func `a matrix whose elements are too small or too large for scales stays dense, and is named`() throws {
    let values = ModelTensor.random("usual", [96, 96], seed: 1).values
    let source = try writeModel(
      [("small", 1e-9), ("large", 1e9), ("usual", 1)].map { name, scale in
        ModelTensor(name, .f32, [96, 96], values.map { $0 * scale })
      }, to: temporary.path + "/extreme.safetensors")
    let warnings = Mutex<[String]>([])
    let folder = try temporary.folder("extreme.mpo")
    try convert(
      source, recipe: recipe(.matrixBytes(.share(0.2))), to: folder,
      options: ConversionOptions(
        jobs: 2, generator: "tests", warning: { text in warnings.withLock { $0.append(text) } }))
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(["small", "large"].allSatisfy { checkpoint.record(named: $0)?.isDense == true })
    #expect(checkpoint.record(named: "usual")?.isDense == false)
    #expect(warnings.withLock { $0 }.filter { $0.contains("for the scales of integers; it stays dense") }.count == 2)
  }

  @Test func `bytes and what they decide exclude each other`() throws {
    var recipe = recipe(.matrixBytes(.share(0.3)))
    recipe.encodings = [EncodingRule(glob: "*", encoding: .plain(.bf16))]
    #expect(
      recipe.conflict() == .noEffect(member: "encodings", value: nil, beside: "budget.matrix_bytes", itsValue: nil))
    recipe.encodings = []
    recipe.central = .int8
    #expect(recipe.conflict() != nil)
    recipe.budget = .ratio(0.3)
    #expect(recipe.conflict() == nil)
    recipe.encodings = [EncodingRule(glob: "*", encoding: .plain(.bf16))]
    #expect(recipe.conflict() == .noEffect(member: "central", value: nil, beside: "encodings", itsValue: nil))
  }
}
