import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct SourceNetworkTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  @Test func `a profile counts every parameter and holds the norm and spectra of every matrix`() throws {
    let checkpoint = try openDenseCheckpoint(at: fixtures + "/tiny-bert")
    let (profile, warnings) = try SourceNetwork(checkpoint, selection: TensorSelection())
      .profile(for: recipe(.auto), jobs: 2)
    #expect(warnings.isEmpty)
    #expect(profile.parameters == 529_957)
    #expect(profile.tiedParameters == 997 * 128)
    #expect(profile.layers.count == 14)
    for layer in profile.layers {
      let values = try checkpoint.values(of: layer.name)
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(abs(layer.norm - norm) < 1e-6 * norm)
      #expect(layer.spectra?.spectra.map(\.count) == layer.shape.fullBonds)
      for spectrum in (layer.spectra?.spectra ?? []) + [layer.singularValues ?? []] {
        #expect(spectrum == spectrum.sorted(by: >))
        #expect(abs(spectrum.reduce(0) { $0 + $1 * $1 }.squareRoot() - norm) < 1e-5 * norm)
      }
    }
  }

  private func recipe(_ structure: MatrixStructure, _ budget: Budget? = nil) -> ConversionRecipe {
    var recipe = ConversionRecipe()
    recipe.structure = structure
    recipe.budget = budget
    return recipe
  }

  @Test(
    arguments: [
      (MatrixStructure.chain, nil, true, false), (.chain, .ratio(0.5), true, false),
      (.chain, .maximumError(0.1), true, false),
      (.svd, nil, false, true), (.svd, .ratio(0.5), false, true), (.auto, nil, true, true),
      (.chain, .bond(4), false, false), (.svd, .bond(4), false, false), (.chain, .lossless, true, false),
    ] as [(MatrixStructure, Budget?, Bool, Bool)])
  func `only the spectra that the recipe needs are computed`(
    structure: MatrixStructure, budget: Budget?, hasSpectra: Bool, hasValues: Bool
  ) throws {
    let checkpoint = try openDenseCheckpoint(at: fixtures + "/tiny-bert")
    let profile = try SourceNetwork(checkpoint, selection: TensorSelection())
      .profile(for: recipe(structure, budget), jobs: 2).profile
    for layer in profile.layers {
      #expect((layer.spectra != nil) == hasSpectra && (layer.singularValues != nil) == hasValues)
      #expect(layer.metricSingularValues == nil && layer.norm > 0)
    }
  }

  @Test(arguments: [1, 2, 3, 7, 20])
  func `the parts of a profile joined are the whole profile`(count: Int) throws {
    let checkpoint = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let network = try SourceNetwork(checkpoint, selection: TensorSelection())
    let whole = try network.profile(for: ConversionRecipe(), jobs: 2).profile
    let parts = try (1...count).map { index in
      let part = try #require(SourceNetwork.Part(index: index, count: count))
      let profile = try network.profile(for: ConversionRecipe(), part: part, jobs: 1).profile
      return ("\(index).json", StageFile.Profile(source: "m", part: part, recipe: ConversionRecipe(), network: profile))
    }
    #expect(parts.reduce(0) { $0 + $1.1.network.layers.count } == whole.layers.count)
    for parts in [parts, parts.reversed()] {
      let merged = try StageFile.merge(parts).network
      let expected = StageFile.Profile(source: "m", part: nil, recipe: ConversionRecipe(), network: whole)
      #expect(merged == (try StageFile.merge([("whole", expected)]).network))
      #expect(Set(merged.layers) == Set(whole.layers))
    }
  }

  @Test func `a part is one of at least one`() {
    #expect(SourceNetwork.Part(index: 1, count: 1) != nil)
    for (index, count) in [(0, 1), (2, 1), (-1, 3), (1, 0), (1, -1), (4, 3)] {
      #expect(SourceNetwork.Part(index: index, count: count) == nil)
    }
  }

  @Test func `matrices with NaN or infinity are left out with a warning each`() throws {
    var values = ModelTensor.random("", [64, 64], seed: 1).values
    values[2000] = .nan
    let nan = ModelTensor("has.nan", .f32, [64, 64], values)
    values[2000] = -.infinity
    let infinity = ModelTensor("has.infinity", .f16, [64, 64], values)
    values[2000] = 1e38
    let huge = ModelTensor("is.huge", .f32, [64, 64], values)
    let model = try writeModel(
      [nan, infinity, huge, .random("fine", [64, 64], seed: 2)], to: temporary.path + "/model.safetensors")
    let (profile, warnings) = try SourceNetwork(model, selection: TensorSelection()).profile(
      for: ConversionRecipe(), jobs: 2)
    #expect(profile.layers.map(\.name) == ["fine"])
    // In the order of the file, where the wide types come first as they were declared.
    #expect(warnings.count == 3)
    for name in ["has.nan", "has.infinity", "is.huge"] {
      #expect(warnings.contains { $0.contains("'\(name)'") && $0.contains("stays dense") && !$0.contains("\n") })
    }
    for budget in [Budget.ratio(0.9), .lossless] {
      let checkpoint = try converted(model, budget, to: temporary.folder("\(budget).mpo"))
      for tensor in model.tensors where tensor.name != "fine" {
        let record = try #require(checkpoint.record(named: tensor.name))
        #expect(record.isDense)
        #expect(try checkpoint.withDenseBytes(of: record) { Array($0) } == model.bytes(of: tensor.name))
      }
    }
  }

  @Test func `progress runs from the first tensor to the whole`() throws {
    let checkpoint = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let network = try SourceNetwork(checkpoint, selection: TensorSelection())
    let seen = ParallelResults<[StageProgress]>(count: 1)
    _ = try network.profile(for: ConversionRecipe(), jobs: 2) { seen[0] = (seen[0] ?? []) + [$0] }
    let steps = try #require(seen[0])
    #expect(steps.count == network.matrices.count)
    #expect(steps.map(\.completed) == steps.map(\.completed).sorted())
    #expect(steps.last?.completed == steps.last?.total)
    #expect(Set(steps.map(\.tensor)) == Set(network.matrices.map(\.tensor.name)))
    #expect(steps.allSatisfy { $0.stage == .profile })
  }
}
