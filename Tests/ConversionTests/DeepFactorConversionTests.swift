import Checkpoints
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

/// Factorisations of low rank with square cores between their frames.
@Suite struct DeepFactorConversionTests {
  private let temporary: TemporaryFolder
  private let source: any DenseCheckpoint

  init() throws {
    temporary = try TemporaryFolder()
    source = try writeModel(
      [
        .random("tall.weight", [160, 72], decay: 0.9, seed: 1), .random("bias", [160], seed: 2),
        .random("wide.weight", [64, 200], decay: 0.95, seed: 3),
        .random("square.weight", [80, 80], .bf16, decay: 0.88, seed: 4),
      ], to: temporary.path + "/model.safetensors")
  }

  private func convert(_ budget: Budget, depth: Int) throws -> MPOCheckpoint {
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.structure, recipe.depth) = (budget, .svd, depth)
    let folder = try temporary.folder("\(budget)-\(depth)")
    let options = ConversionOptions(jobs: 2, generator: "tests")
    try Conversion.convert(source, recipe: recipe, to: folder, options: options)
    return try MPOCheckpoint(path: folder)
  }

  @Test(arguments: [3, 5], [Budget.matrixRatio(0.5), .maximumError(0.2), .bond(9)])
  func `all of their numbers are counted, and they restore to what factors of two sites do`(
    depth: Int, budget: Budget
  ) throws {
    let checkpoint = try convert(budget, depth: depth)
    let contents = checkpoint.contents
    #expect(contents.operators.count == 3)
    var stored = 160
    for record in contents.operators {
      let rank = record.bonds[0]
      #expect(record.shape == .factored(rows: record.rows, columns: record.columns, sites: depth))
      #expect(record.gauge == .canonical && record.bonds == Array(repeating: rank, count: depth - 1))
      stored += rank * (record.rows + record.columns) + (depth - 2) * rank * rank
      let tensor = try #require(contents.tensor(named: record.name)?.blocks)
      #expect(
        abs(try #require(tensor.relativeError) - leastError(of: record))
          < (record.name == "square.weight" ? 5e-3 : 1e-5))
      #expect(record.entropies == nil || record.entropies?.count == depth - 1)
    }
    #expect(checkpoint.manifest.totals.parametersStored == stored)
    if case .matrixRatio(let ratio) = budget {
      #expect(Double(stored - 160) <= ratio * Double(160 * 72 + 64 * 200 + 80 * 80))
    }
    #expect(try checkpoint.damagedFiles().isEmpty)
  }

  /// Of any factorisation of an operator's rank.
  private func leastError(of record: OperatorRecord) throws -> Double {
    let tensor = try #require(source.tensor(named: record.name))
    let values = try source.withMatrix(of: tensor, rows: record.rows, columns: record.columns) {
      (view: MatrixView<Double>) in
      try SingularSpectra(of: view, shape: .lowRank(rows: record.rows, columns: record.columns)).spectra[0]
    }
    let tail = values.dropFirst(record.bonds[0]).reduce(0) { $0 + $1 * $1 }
    return (tail / values.reduce(0) { $0 + $1 * $1 }).squareRoot()
  }
}
