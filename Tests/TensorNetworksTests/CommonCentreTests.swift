import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct CommonCentreTests {
  private static func shape() throws -> MPOShape { try MPOShape(rowFactors: [2, 3, 2], columnFactors: [2, 4, 2]) }

  /// Chains of one central core and orthogonal auxiliary ones near the identity, and noise.
  private func matrices(noise: Double, turn: Double = 0.2) throws -> [Matrix<Double>] {
    var generator = SeededGenerator(seed: 3)
    let shape = try Self.shape()
    let centre = Matrix<Double>.random(rows: 4 * 12, columns: 4, using: &generator)
    return try (0..<4).map { _ in
      var sides: [Matrix<Double>] = []
      for _ in 0..<2 {
        var matrix = Matrix<Double>.identity(4)
        let random = Matrix<Double>.random(rows: 4, columns: 4, using: &generator)
        for row in 0..<4 { for column in 0..<4 { matrix[row, column] += turn * random[row, column] } }
        sides.append(try QRDecomposition(of: matrix).q)
      }
      let cores = zip(
        shape.coreShapes(bonds: [4, 4]), [sides[0].elements, centre.elements, sides[1].elements]
      ).map { MPOCore(shape: $0, elements: $1) }
      var matrix = MPO(shape: shape, cores: cores).matrix(rows: 12, columns: 16)
      let random = Matrix<Double>.random(rows: 12, columns: 16, using: &generator)
      for row in 0..<12 { for column in 0..<16 { matrix[row, column] += noise * random[row, column] } }
      return matrix
    }
  }

  @Test func `a central core that matrices have in common is found`() throws {
    let found = try CommonCentre(of: matrices(noise: 0), shape: Self.shape(), maximumSweeps: 500, tolerance: 0)
    #expect(found.squaredErrors[found.squaredErrors.count - 1] < 1e-6)
  }

  @Test(arguments: [0.3, 1, 10]) func `no sweep raises the error, which is that of the chains`(noise: Double) throws {
    let matrices = try matrices(noise: noise, turn: 1)
    let found = try CommonCentre(of: matrices, shape: Self.shape())
    #expect(found.squaredErrors.count > 2)
    for (before, after) in zip(found.squaredErrors, found.squaredErrors.dropFirst()) {
      #expect(after <= before * (1 + 1e-12))
    }
    var squared = 0.0
    for (matrix, chain) in zip(matrices, found.chains) {
      squared += matrix.withView { chain.squaredDistance(to: $0) }
      #expect(chain.bonds == [4, 4] && chain.cores[1] == found.chains[0].cores[1])
      for frame in [chain.cores[0].leftUnfolding, chain.cores[2].rightUnfolding.transposed()] {
        let gram = frame.transposed() * frame
        #expect(zip(gram.elements, Matrix<Double>.identity(4).elements).allSatisfy { abs($0 - $1) < 1e-12 })
      }
    }
    let total = matrices.reduce(0) { $0 + $1.norm * $1.norm }
    #expect(abs(squared / total - found.squaredErrors[found.squaredErrors.count - 1]) < 1e-10)
    // The mean of what was aligned is nearer to all than the first is.
    #expect(found.squaredErrors[found.squaredErrors.count - 1] < 0.9 * found.squaredErrors[0])
  }

  @Test func `padding and chains of five sites do not matter`() throws {
    var generator = SeededGenerator(seed: 8)
    let matrices = (0..<3).map { _ in Matrix<Double>.random(rows: 23, columns: 30, using: &generator) }
    let shape = try MPOShape(rowFactors: [2, 2, 2, 3, 1], columnFactors: [1, 2, 4, 2, 2])
    let found = try CommonCentre(of: matrices, shape: shape)
    #expect(found.chains[0].bonds == shape.fullBonds)
    let squared = zip(matrices, found.chains).reduce(0) { sum, pair in
      sum + pair.0.withView { pair.1.squaredDistance(to: $0) }
    }
    let total = matrices.reduce(0) { $0 + $1.norm * $1.norm }
    #expect(squared / total <= found.squaredErrors[found.squaredErrors.count - 1] + 1e-10)
  }
}
