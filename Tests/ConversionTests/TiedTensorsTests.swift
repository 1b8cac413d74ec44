import Checkpoints
import MPOCheckpoints
import TestSupport
import Testing

@testable import Conversion

@Suite struct TiedTensorsTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  private func ties(_ tensors: [ModelTensor]) throws -> [TensorName: String] {
    try TiedTensors.find(in: writeModel(tensors, to: temporary.path + "/model.safetensors")).mapValues(\.name)
  }

  @Test func `tensors of the same bytes are tied to the first of them`() throws {
    let a = ModelTensor.random("a", [64, 64], seed: 1)
    let b = ModelTensor.random("b", [64, 64], seed: 2)
    #expect(
      try ties([a, b, a.named("c"), b.named("d"), a.named("e"), .random("f", [64, 64], seed: 3)])
        == ["c": "a", "d": "b", "e": "a"])
  }

  @Test func `a difference anywhere keeps tensors apart`() throws {
    let a = ModelTensor.random("a", [64, 64], seed: 1)
    for place in [0, 1, 1023, 1024, 4095] {
      var values = a.values
      values[place] += 1
      #expect(try ties([a, ModelTensor("b", .f32, [64, 64], values)]).isEmpty)
    }
  }

  @Test func `the same numbers in another shape or type are not tied`() throws {
    let a = ModelTensor.random("a", [64, 64], seed: 1)
    #expect(
      try ties([a, ModelTensor("b", .f32, [32, 128], a.values), ModelTensor("c", .f64, [64, 64], a.values)]).isEmpty)
  }

  @Test func `small tensors that may be equal by accident are not tied`() throws {
    let small = ModelTensor.random("small", [63, 65], seed: 1)
    let vector = ModelTensor.random("vector", [8192], seed: 2)
    let ones = ModelTensor("zeros", .f32, [64, 64], Array(repeating: 0, count: 4096))
    #expect(
      try ties([small, small.named("s"), vector, vector.named("v"), ones, ones.named("o")]).isEmpty)
  }

  @Test func `tied tensors are stored once and restored both`() throws {
    let a = ModelTensor.random("a", [64, 96], seed: 1)
    let ids = ModelTensor("ids", .i64, [64, 64], (0..<4096).map(Double.init))
    let model = try writeModel(
      [a, a.named("b"), ids, ids.named("ids again")], to: temporary.path + "/model.safetensors")
    for budget in [0.6, 0.4] {
      let folder = try temporary.folder("\(budget).mpo")
      let checkpoint = try converted(model, .ratio(budget), to: folder)
      #expect(checkpoint.record(named: "b")?.storage == .tied(to: "a"))
      #expect(checkpoint.record(named: "ids again")?.storage == .tied(to: "ids"))
      #expect(checkpoint.manifest.totals.ratio <= budget)
      let path = temporary.path + "/\(budget).safetensors"
      try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
      let restored = try openDenseCheckpoint(at: path)
      #expect(try restored.bytes(of: "a") == restored.bytes(of: "b"))
      #expect(try restored.bytes(of: "ids") == model.bytes(of: "ids"))
      #expect(try restored.bytes(of: "ids again") == model.bytes(of: "ids"))
    }
  }
}
