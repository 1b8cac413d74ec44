import Checkpoints
import Foundation
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Eight layers of a decoder, 64 wide with 128 hidden neurons, whose second moments are far from the identity.
@Suite struct NetworkBasesTests {
  private let temporary: TemporaryFolder
  private let model: any DenseCheckpoint
  private let statistics: CalibrationStatistics
  private let recipe: ConversionRecipe
  private let options = ConversionOptions(jobs: 2, generator: "tests")

  private static let sides: [(name: String, rows: Int, columns: Int)] = (0..<8).flatMap { layer in
    [
      ("self_attn.q_proj", 64, 64), ("self_attn.o_proj", 64, 64), ("mlp.gate_proj", 128, 64), ("mlp.up_proj", 128, 64),
      ("mlp.down_proj", 64, 128),
    ].map { ("layers.\(layer).\($0.0).weight", $0.1, $0.2) }
  }

  init() throws {
    temporary = try TemporaryFolder()
    model = try writeModel(
      Self.sides.enumerated().map { .random($1.name, [$1.rows, $1.columns], decay: 1, seed: UInt64($0)) },
      to: temporary.path + "/m.safetensors")
    statistics = try Self.statistics(temporary.path + "/s.safetensors")
    var recipe = ConversionRecipe()
    (recipe.structure, recipe.budget) = (.chain, .matrixRatio(0.6))
    recipe.metric = try statistics.identity()
    self.recipe = recipe
  }

  /// Second moments of few directions, the same ones for all that reads or is written to the stream.
  private static func statistics(
    _ path: String, decay: Double = 0.8, zero: String? = nil
  ) throws -> CalibrationStatistics {
    func moment(_ size: Int, seed: UInt64) -> [Double] {
      var generator = SeededGenerator(seed: seed)
      let root = Matrix<Double>(
        rows: size, columns: size / 2,
        elements: (0..<size * size / 2).map {
          Double.random(in: -1...1, using: &generator) * pow(decay, Double($0 % (size / 2)))
        })
      return (root * root.transposed()).elements
    }
    let tensors = sides.flatMap { name, rows, columns -> [ModelTensor] in
      let layer = UInt64(name.split(separator: ".")[1]) ?? 0
      return [
        ModelTensor(
          name + ".row_gram", .f64, [rows, rows],
          name == zero
            ? Array(repeating: 0, count: rows * rows) : moment(rows, seed: UInt64(rows) + (rows == 64 ? 0 : layer))),
        ModelTensor(name + ".column_gram", .f64, [columns, columns], moment(columns, seed: 100 + UInt64(columns))),
      ]
    }
    let writer = try SafetensorsWriter(
      path: path, tensors: tensors.map(\.info),
      metadata: ["format": "mpo-statistics", "version": "2", "input_rows": "[]"])
    for tensor in tensors { try tensor.bytes.withUnsafeBytes { try writer.write($0, to: tensor.info.name) } }
    try writer.finish()
    return try CalibrationStatistics(path: path)
  }

  private func converted(
    _ recipe: ConversionRecipe, _ name: String, jobs: Int = 2, statistics: CalibrationStatistics? = nil
  ) throws -> MPOCheckpoint {
    let folder = try temporary.folder(name)
    try convert(
      model, recipe: recipe, statistics: statistics ?? self.statistics, to: folder,
      options: ConversionOptions(jobs: jobs, generator: "tests"))
    return try MPOCheckpoint(path: folder)
  }

  @Test func `the stream has one basis for what reads it and one for what is written, hidden neurons one order`() throws
  {
    let checkpoint = try converted(recipe, "out.mpo")
    let operators = checkpoint.contents.operators
    #expect(operators.count >= 5)
    for record in operators {
      let isWriter = record.name.contains("o_proj") || record.name.contains("down_proj")
      let hidden = "layers.\(record.name.split(separator: ".")[1]).hidden.128.permutation"
      let stream = isWriter ? record.rowBasis?.basis : record.columnBasis?.basis
      #expect(stream == (isWriter ? "stream.written.64.basis" : "stream.read.64.basis"), "\(record.name)")
      if record.name.contains("mlp") {
        #expect((isWriter ? record.columnBasis : record.rowBasis)?.permutation == hidden, "\(record.name)")
      }
      #expect(record.rowBasis?.scale != nil && record.columnBasis?.scale != nil)
    }
    #expect(try Verifier(jobs: 2).verify(checkpoint).problems == [])
  }

  @Test func `rules say which sides share a basis, and which share nothing`() throws {
    var recipe = recipe
    recipe.spaces = [
      SpaceRule(glob: "*.self_attn.*", side: .outputs, space: "own"),
      SpaceRule(glob: "*.o_proj.weight", side: .inputs, space: "heads"),
      SpaceRule(glob: "*.q_proj.weight", side: .outputs, space: "heads"),
    ]
    let checkpoint = try converted(recipe, "out.mpo")
    for record in checkpoint.contents.operators {
      if record.name.contains("q_proj") {
        #expect(record.rowBasis?.basis == "heads.64.basis" && record.columnBasis?.basis == "stream.read.64.basis")
      } else if record.name.contains("o_proj") {
        #expect(record.columnBasis?.basis == "heads.64.basis")
        #expect(record.rowBasis?.basis == nil && record.rowBasis?.permutation == "\(record.name).rows.permutation")
      } else if record.name.contains("down_proj") {
        #expect(record.rowBasis?.basis == "stream.written.64.basis")
      }
    }
    #expect(checkpoint.contents.operators.contains { $0.name.contains("q_proj") })
    #expect(checkpoint.contents.operators.contains { $0.name.contains("o_proj") })
    #expect(try Verifier(jobs: 2).verify(checkpoint).problems == [])
    #expect(try Conversion.recipe(of: checkpoint).spaces == recipe.spaces)
  }

  @Test func `without a side a rule goes to both, where a basis pays`() throws {
    var recipe = recipe
    recipe.spaces = [SpaceRule(glob: "*.mlp.*", space: "stream")]
    for record in try converted(recipe, "out.mpo").contents.operators where record.name.contains("up_proj") {
      #expect(record.columnBasis?.basis == "stream.read.64.basis")
      // Of 128 × 128 numbers there are too many for the matrices that share them.
      #expect(record.rowBasis?.basis == nil)
    }
  }

  @Test func `a rule for no matrix is refused`() throws {
    var recipe = recipe
    recipe.spaces = [SpaceRule(glob: "*.nothing", side: .inputs, space: "stream")]
    #expect(
      throws: ConversionError.badMember(
        member: "spaces", value: "*.nothing", reason: "matches no matrix that may become a chain and has statistics")
    ) { try converted(recipe, "out.mpo") }
  }

  @Test func `bases count once, and all numbers together keep the budget`() throws {
    let checkpoint = try converted(recipe, "out.mpo")
    let totals = checkpoint.manifest.totals
    #expect(Double(totals.parametersStored) <= 0.6 * Double(totals.parametersBefore))
    #expect(Double(totals.parametersStored) > 0.55 * Double(totals.parametersBefore))
    let counted =
      checkpoint.contents.cores.reduce(0) { $0 + $1.valueCount }
      + checkpoint.contents.tensors.reduce(0) { $0 + ($1.array?.valueCount ?? 0) }
    #expect(totals.parametersStored == counted)
    let found = recipe.selection.parameters(in: checkpoint.contents, ModelConfiguration())
    #expect(found.stored == counted)
  }

  @Test func `bases lower the error in the metric`() throws {
    // Where all directions count, the order in which neurons happen to be kept is in the way.
    let statistics = try Self.statistics(temporary.path + "/even.safetensors", decay: 0.95)
    var recipe = recipe
    recipe.metric = try statistics.identity()
    var plain = recipe
    plain.basis = .none
    func error(_ checkpoint: MPOCheckpoint) -> Double {
      checkpoint.contents.tensors.reduce(0) { $0 + pow($1.blocks?.metricRelativeError ?? 0, 2) }
    }
    let (inBases, natural) = (
      try converted(recipe, "bases.mpo", statistics: statistics),
      try converted(plain, "plain.mpo", statistics: statistics)
    )
    #expect(natural.contents.operators.allSatisfy { $0.rowBasis == nil && $0.columnBasis == nil })
    #expect(error(inBases) < 0.7 * error(natural))
    // What the manifest says is what a reader finds.
    let record = try #require(inBases.contents.tensors.first { $0.blocks != nil })
    let restored: Matrix<Double> = try inBases.matrix(of: try #require(record.blocks))
    let weight = try model.values(of: record.name)
    #expect(abs(relativeDifference(restored.elements, weight) - (record.blocks?.relativeError ?? 0)) < 1e-5)
  }

  @Test(arguments: [1, 3]) func `the recipe makes the same bytes again, with any number of jobs, in parts too`(
    jobs: Int
  ) throws {
    let once = try converted(recipe, "once.mpo")
    let again = try converted(try Conversion.recipe(of: once), "again.mpo", jobs: jobs)
    #expect(again.manifest == once.manifest)
    let pipeline = try ConversionPipeline(model, recipe: recipe, statistics: statistics, options: options)
    let plan = try pipeline.plan(pipeline.profile())
    let parts = try (1...2).map { index in
      let folder = try temporary.folder("part-\(index)")
      try pipeline.decompose(plan, to: folder, part: try #require(SourceNetwork.Part(index: index, count: 2)))
      return try MPOCheckpoint(path: folder)
    }
    let merged = try temporary.folder("merged.mpo")
    try Merger(jobs: jobs).merge(parts, to: merged)
    #expect(try MPOCheckpoint(path: merged).manifest == once.manifest)
  }

  @Test func `a side without any moment keeps its order`() throws {
    let zero = "layers.0.self_attn.q_proj.weight"
    let statistics = try Self.statistics(temporary.path + "/z.safetensors", zero: zero)
    var recipe = recipe
    recipe.metric = try statistics.identity()
    let folder = try temporary.folder("zero.mpo")
    try convert(model, recipe: recipe, statistics: statistics, to: folder, options: options)
    let checkpoint = try MPOCheckpoint(path: folder)
    if let record = checkpoint.contents.operator(named: zero) { #expect(record.rowBasis == nil) }
    #expect(try Verifier(jobs: 2).verify(checkpoint).problems == [])
  }

  @Test func `inputs may be rows, and a rotation that few matrices share is an order`() throws {
    func matrix(_ name: String, _ rows: Int, _ columns: Int) -> WeightMatrix {
      WeightMatrix(
        tensor: TensorInfo(name: name, dtype: .f32, shape: [rows, columns]), rows: rows, columns: columns,
        shape: .automatic(rows: rows, columns: columns, sites: 5))
    }
    let layers = (0..<12).map { matrix("h.\($0).mlp.c_fc.weight", 64, 256) }
    let spaces = NetworkSpaces(layers + [matrix("h.0.attn.c_proj.weight", 64, 64)]) { _ in .rows }
    let fc = try #require(spaces.spaces(of: "h.3.mlp.c_fc.weight"))
    #expect(fc.rows == .rotated("stream.read.64") && fc.columns == .sorted("h.3.hidden.256"))
    let projection = try #require(spaces.spaces(of: "h.0.attn.c_proj.weight"))
    #expect(projection.columns == .sorted("h.0.attn.c_proj.weight.columns"))
    #expect(projection.rows == .sorted("h.0.attn.c_proj.weight.rows"))
  }

  @Test(arguments: [
    "encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.output.dense.weight",
    "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight",
  ])
  func `encoders like BERT have the spaces of their names`(name: String) throws {
    let matrices = (0..<40).map { index in
      WeightMatrix(
        tensor: TensorInfo(name: name.replacing(".0.", with: ".\(index)."), dtype: .f32, shape: [64, 64]), rows: 64,
        columns: 64, shape: .automatic(rows: 64, columns: 64, sites: 5))
    }
    let spaces = NetworkSpaces(matrices) { _ in .columns }
    let found = try #require(spaces.spaces(of: name))
    let hidden = NetworkSpaces.Space.sorted("encoder.layer.0.hidden.64")
    switch name.split(separator: ".").suffix(4).joined(separator: ".") {
    case "attention.self.query.weight":
      #expect(found.columns == .rotated("stream.read.64") && found.rows == .sorted("\(name).rows"))
    case "attention.output.dense.weight":
      #expect(found.rows == .rotated("stream.written.64") && found.columns == .sorted("\(name).columns"))
    case "0.intermediate.dense.weight": #expect(found.columns == .rotated("stream.read.64") && found.rows == hidden)
    default: #expect(found.rows == .rotated("stream.written.64") && found.columns == hidden)
    }
  }
}
