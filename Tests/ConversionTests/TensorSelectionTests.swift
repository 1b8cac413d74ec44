import Checkpoints
import Recipes
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct TensorSelectionTests {
  private let temporary: TemporaryFolder
  private let model: any DenseCheckpoint

  init() throws {
    temporary = try TemporaryFolder()
    model = try writeModel(
      [
        .random("block.0.query.weight", [64, 64], seed: 1), .random("block.0.query.bias", [64], seed: 2),
        .random("block.1.query.weight", [64, 96], seed: 3), .random("small.weight", [8, 128], seed: 4),
        .random("thin.weight", [1, 128], seed: 5), .random("conv.weight", [64, 8, 3, 3], seed: 6),
        ModelTensor("ids", .i64, [64, 64], Array(repeating: 1, count: 4096)),
        .random("double", [64, 64], .f64, seed: 7), .random("half", [64, 64], .f16, seed: 8),
        .random("brain", [63, 64], .bf16, seed: 9), .random("cube", [64, 64, 2], seed: 10),
        .random("empty", [0, 64], seed: 11),
      ], to: temporary.path + "/model.safetensors")
  }

  private func names(_ change: (inout TensorSelection) -> Void = { _ in }) throws -> [String] {
    var selection = TensorSelection()
    change(&selection)
    return try selection.matrices(of: model).map(\.tensor.name)
  }

  @Test func `by default every floating-point matrix with both sides at least 64 is chosen`() throws {
    #expect(try names() == ["block.0.query.weight", "block.1.query.weight", "double", "half"])
  }

  @Test func `include chooses by name alone, whatever the size`() throws {
    #expect(try names { $0.include = ["small*"] } == ["small.weight"])
    #expect(
      try names { $0.include = ["*.weight"] } == ["block.0.query.weight", "block.1.query.weight", "small.weight"])
    #expect(try names { $0.include = ["brain", "block.?.query.*"] }.count == 3)
  }

  @Test func `exclude wins over include`() throws {
    #expect(try names { $0.exclude = ["block.*"] } == ["double", "half"])
    #expect(
      try names {
        $0.include = ["block*"]
        $0.exclude = ["*.1.*"]
      } == ["block.0.query.weight"])
  }

  @Test(arguments: ["nothing*", "*.bias", "ids", "thin.weight", "conv.weight", "empty", "block", ""])
  func `a glob that matches no matrix is refused`(glob: String) throws {
    expectFailure("'selection.include' '\(glob)'", "mpo inspect", model.path) { _ = try names { $0.include = [glob] } }
    expectFailure("'selection.exclude' '\(glob)'") { _ = try names { $0.exclude = [glob] } }
    let shape = try MPOShape(rowFactors: [8, 8], columnFactors: [8, 8])
    expectFailure("'selection.shapes' '\(glob)'") {
      _ = try names { $0.shapes = [TensorSelection.ShapeRule(glob: glob, shape: shape)] }
    }
  }

  @Test func `a model with nothing left to decompose is refused`() throws {
    expectFailure(model.path, "no matrix to decompose", "'selection.include'") { _ = try names { $0.exclude = ["*"] } }
  }

  @Test func `the last shape that matches wins`() throws {
    let first = try MPOShape(rowFactors: [8, 8], columnFactors: [8, 8])
    let last = try MPOShape(rowFactors: [4, 4, 4], columnFactors: [4, 4, 4])
    var selection = TensorSelection()
    selection.shapes = [
      TensorSelection.ShapeRule(glob: "*", shape: first), TensorSelection.ShapeRule(glob: "h*", shape: last),
    ]
    selection.include = ["double", "half"]
    #expect(try selection.matrices(of: model).map(\.shape) == [first, last])
  }

  @Test func `factors that do not multiply to the sides are refused with both`() throws {
    for (rows, columns) in [([8, 7], [8, 8]), ([8, 8], [8, 9]), ([8, 16], [8, 8]), ([2, 2], [2, 2])] {
      let shape = try MPOShape(rowFactors: rows, columnFactors: columns)
      expectFailure("'half' is 64 × 64", shape.description, "multiply") {
        _ = try names {
          $0.shapes = [TensorSelection.ShapeRule(glob: "half", shape: shape)]
          $0.include = ["half"]
        }
      }
    }
    // Up to a sixteenth more is padding.
    let padded = try MPOShape(rowFactors: [4, 17], columnFactors: [8, 8])
    #expect(
      try names {
        $0.shapes = [TensorSelection.ShapeRule(glob: "half", shape: padded)]
        $0.include = ["half"]
      } == ["half"])
  }

  @Test func `the number of sites is as asked for`() throws {
    for sites in [2, 3, 4, 5] {
      var selection = TensorSelection()
      selection.sites = sites
      #expect(try selection.matrices(of: model).allSatisfy { $0.shape.siteCount == sites })
    }
  }

  @Test func `a shape is parsed as the command line writes it`() throws {
    let rule = try TensorSelection.parseShape("*.a=b.weight=3,4,4x4,8,6")
    #expect(rule.glob == "*.a=b.weight")
    #expect(rule.shape == (try MPOShape(rowFactors: [3, 4, 4], columnFactors: [4, 8, 6])))
    #expect(rule.shape.description == "3,4,4x4,8,6")
  }

  @Test(arguments: [
    "", "=", "w", "w=", "w=3,4", "w=3,4x", "w=x3,4", "w=3,4x4,4x2,2", "w=3;4x4;4", "w=3,4x4", "w=3x4", "w=0,4x4,4",
    "w=-3,4x4,4", "w=1,4x1,4", "w=3,,4x4,4", "w=3, 4x4,4", "w=9999999999999999999,1x1,2",
    "w=4294967296,4294967296x2,2",
  ])
  func `an invalid shape is refused`(text: String) {
    expectFailure("'selection.shapes' '\(text)'") { _ = try TensorSelection.parseShape(text) }
  }

  @Test func `convolution kernels are matrices of output by the rest, on request only`() throws {
    #expect(try names { $0.convolutions = true }.contains("conv.weight"))
    #expect(try !names().contains("conv.weight"))
    let pytorch = TensorInfo(name: "k", dtype: .f32, shape: [64, 8, 3, 5], orientation: .outputInput)
    let keras = TensorInfo(name: "k", dtype: .f32, shape: [3, 5, 8, 64], orientation: .inputOutput)
    #expect(WeightMatrix.sides(of: pytorch) == nil && WeightMatrix.sides(of: keras) == nil)
    let a = try #require(WeightMatrix.sides(of: pytorch, convolutions: true))
    #expect(a.rows == 64 && a.columns == 120)
    let b = try #require(WeightMatrix.sides(of: keras, convolutions: true))
    #expect(b.rows == 120 && b.columns == 64)
  }

  @Test(arguments: [
    ("mha/query_dense/vars/0", [768, 24, 32], (768, 768)), ("gqa/_key_dense/vars/0", [768, 2, 32], (768, 64)),
    ("mha/output_dense/vars/0", [24, 32, 768], (768, 768)),
    ("a/query/kernel:0", [768, 12, 64], (768, 768)), ("a/attention_output/kernel:0", [12, 64, 500], (768, 500)),
    ("a/key/kernel", [768, 2, 16], (768, 32)),
  ])
  func `kernels of attention are matrices by their names`(name: String, shape: [Int], sides: (Int, Int)) throws {
    let tensor = TensorInfo(name: name, dtype: .f32, shape: shape, orientation: .inputOutput)
    for convolutions in [false, true] {
      let found = try #require(WeightMatrix.sides(of: tensor, convolutions: convolutions))
      #expect(found == sides)
    }
  }

  @Test(arguments: [
    ([768, 24, 32], (768, 768)), ([24, 32, 768], (768, 768)), ([7, 7, 3, 32], (49, 96)), ([3, 256, 512], (768, 512)),
    ([3, 3, 64, 1], (9, 64)), ([3, 3, 3, 32, 64], (864, 64)), ([1, 1, 128, 256], (128, 256)),
  ])
  func `other kernels of Keras are split where the sides are nearest`(shape: [Int], sides: (Int, Int)) throws {
    let tensor = TensorInfo(name: "x/vars/0", dtype: .f32, shape: shape, orientation: .inputOutput)
    #expect(WeightMatrix.sides(of: tensor) == nil)
    let found = try #require(WeightMatrix.sides(of: tensor, convolutions: true))
    #expect(found == sides)
  }

  @Test func `ties are the layers of each glob, and none is in two`() throws {
    let network = try SourceNetwork(model, selection: TensorSelection()).profile(for: ConversionRecipe(), jobs: 2)
      .profile
    #expect(try network.ties(["block.*", "ha*"], path: "m") == [[0, 1], [3]])
    expectFailure("'ties' 'none'", "m: ") { _ = try network.ties(["none"], path: "m") }
    expectFailure("'ties' '*'", "'half'") { _ = try network.ties(["half", "*"], path: "m") }
  }
}
