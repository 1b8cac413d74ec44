import LinearAlgebra
import Squeezing
import TensorNetworks
import Testing

@Suite struct LayerProfileTests {
  @Test func `the error of truncated SVD is that of the largest rank that fits`() throws {
    let layer = try LayerProfile.random("w", .lowRank(rows: 12, columns: 20), decay: 0.8, seed: 1)
    #expect(layer.singularValues.count == 12)
    #expect(abs(layer.singularValues.reduce(0) { $0 + $1 * $1 }.squareRoot() - layer.norm) < 1e-10 * layer.norm)
    for rank in 0...12 {
      let tail = layer.singularValues.dropFirst(rank).reduce(0) { $0 + $1 * $1 }.squareRoot() / layer.norm
      #expect(abs(layer.svdRelativeError(parameters: 32 * rank) - tail) < 1e-12)
      #expect(layer.svdRelativeError(parameters: 32 * rank + 31) == layer.svdRelativeError(parameters: 32 * rank))
    }
    #expect(layer.svdRelativeError(parameters: 0) <= 1)
    #expect(layer.svdRelativeError(parameters: 1_000_000) == 0)
  }

  @Test func `the two-site shape is truncated SVD`() throws {
    let layer = try LayerProfile.random("w", .lowRank(rows: 12, columns: 20), decay: 0.8, seed: 2)
    for rank in 1...12 {
      let bound = layer.relativeErrorBound(bonds: [rank])
      #expect(abs(bound - layer.svdRelativeError(parameters: 32 * rank)) < 1e-7)
    }
  }

  @Test func `a matrix of zeros has no error`() throws {
    let zero = try LayerProfile(
      "zero", of: Matrix(rows: 4, columns: 6, elements: Array(repeating: 0, count: 24)),
      shape: .lowRank(rows: 4, columns: 6))
    #expect(zero.relativeErrorBound(bonds: [1]) == 0)
    #expect(zero.svdRelativeError(parameters: 0) == 0)
  }
}
