import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct CanonicalizationTests {
  static let shapes: [(rowFactors: [Int], columnFactors: [Int])] = [
    ([2, 3, 4], [3, 3, 4]),
    ([2, 12], [36, 1]),
    ([30, 1], [1, 12]),
    ([12, 1], [1, 30]),
    ([2, 2, 4, 2, 2], [2, 2, 3, 2, 2]),
    ([4, 2, 2, 4], [2, 3, 4, 2]),
    ([64, 1, 1], [1, 2, 24]),
    ([2, 2, 2, 2, 6], [1, 1, 1, 1, 2]),
  ]

  @Test(arguments: shapes)
  func `canonical form is the same operator, its auxiliary tensors isometries`(
    rowFactors: [Int], columnFactors: [Int]
  ) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    for seed in 1...3 {
      let mpo = randomMPO(shape, bonds: shape.fullBonds.map { max(1, $0 * seed / 3) }, seed: UInt64(seed))
      let canonical = try mpo.canonicalized()
      let w = matrix(of: mpo)
      #expect(canonical.bonds == mpo.bonds)
      #expect(difference(matrix(of: canonical), w) < 1e-12 * w.norm)
      #expect(isCanonical(canonical, tolerance: 1e-12))
    }
  }

  @Test(arguments: shapes)
  func `spectra of cores are those of the matrix they stand for`(rowFactors: [Int], columnFactors: [Int]) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    let mpo = randomMPO(shape, bonds: shape.fullBonds.map { max(1, $0 * 2 / 3) }, seed: 4)
    let w = matrix(of: mpo)
    let expected = try w.withView { try SingularSpectra(of: $0, shape: shape) }
    let spectra = try mpo.spectra()
    #expect(spectra.spectra.map(\.count) == mpo.bonds)
    for (found, reference) in zip(spectra.spectra, expected.spectra) {
      for (index, value) in reference.enumerated() {
        #expect(abs(value - (index < found.count ? found[index] : 0)) < 1e-7 * w.norm)
      }
    }
  }

  @Test(arguments: shapes)
  func `truncating cores is as good as decomposing the matrix to the same bonds`(
    rowFactors: [Int], columnFactors: [Int]
  ) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    for seed in 5...9 {
      var generator = SeededGenerator(seed: UInt64(seed))
      let mpo = randomMPO(shape, bonds: shape.fullBonds, seed: UInt64(seed))
      let bonds = shape.limitedBonds(shape.fullBonds.map { Int.random(in: 1...$0, using: &generator) })
      let w = matrix(of: mpo)
      let truncated = try mpo.truncated(to: bonds)
      #expect(truncated.bonds == bonds)
      #expect(isCanonical(truncated, tolerance: 1e-11))
      let error = difference(matrix(of: truncated), w)
      let reference = try w.withView { view in
        try MPO(decomposing: view, shape: shape, bonds: bonds).squaredDistance(to: view).squareRoot()
      }
      #expect(abs(error - reference) < 1e-7 * w.norm)
      #expect(error <= (try mpo.spectra().squaredErrorBound(bonds: bonds).squareRoot()) + 1e-7 * w.norm)
    }
  }

  @Test(arguments: shapes)
  func `the error of lowering one bond is the tail of its spectrum`(rowFactors: [Int], columnFactors: [Int]) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    let mpo = randomMPO(shape, bonds: shape.fullBonds, seed: 10)
    let w = matrix(of: mpo)
    let spectra = try mpo.spectra()
    for bond in mpo.bonds.indices {
      var bonds = mpo.bonds
      bonds[bond] = max(1, bonds[bond] - 1)
      guard shape.limitedBonds(bonds) == bonds else { continue }
      let error = difference(matrix(of: try mpo.truncated(to: bonds)), w)
      #expect(abs(error - spectra.squaredErrorBound(bonds: bonds).squareRoot()) < 1e-7 * w.norm)
    }
  }

  @Test func `truncating in two steps of one bond is truncating at once`() throws {
    let shape = try MPOShape(rowFactors: [4, 4, 4], columnFactors: [4, 4, 4])
    let mpo = randomMPO(shape, bonds: shape.fullBonds, seed: 11)
    let once = try mpo.truncated(to: [6, 16])
    let twice = try mpo.truncated(to: [11, 16]).truncated(to: [6, 16])
    #expect(difference(matrix(of: once), matrix(of: twice)) < 1e-7 * matrix(of: mpo).norm)
  }

  @Test func `single-precision cores in any gauge keep their operator to 1e-6`() throws {
    let shape = try MPOShape(rowFactors: [2, 2, 4, 2, 2], columnFactors: [2, 3, 4, 2, 2])
    var generator = SeededGenerator(seed: 12)
    let w = Matrix<Float>.random(rows: 64, columns: 96, using: &generator)
    let exact = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: [4, 20, 14, 4]) }
    // What fine-tuning may do: weight moves between the cores, unevenly.
    let scales: [Float] = [1e3, 1e-4, 10, 1e2, 1e-1]
    let moved = MPO(
      shape: shape,
      cores: zip(exact.cores, scales).map { core, scale in
        MPOCore(shape: core.shape, elements: core.elements.map { $0 * scale })
      })
    let canonical = try moved.converted(to: Double.self).canonicalized().converted(to: Float.self)
    let expected = moved.matrix(rows: 64, columns: 96)
    #expect(expected.withView { canonical.squaredDistance(to: $0) }.squareRoot() < 1e-6 * expected.norm)
  }

  @Test func `zero and rank-deficient cores stay finite`() throws {
    let shape = try MPOShape(rowFactors: [2, 4, 2, 2], columnFactors: [3, 2, 4, 2])
    for scale in [0.0, 1] {
      let base = randomMPO(shape, bonds: shape.fullBonds, seed: 13)
      let cores = base.cores.map { core in
        // Every column of the left unfolding is the first one, or zero.
        MPOCore(
          shape: core.shape,
          elements: core.elements.indices.map { scale * core.elements[$0 / core.rightBond * core.rightBond] })
      }
      let mpo = MPO(shape: shape, cores: cores)
      let w = matrix(of: mpo)
      let truncated = try mpo.truncated(to: [1, 1, 1])
      #expect(truncated.cores.allSatisfy { $0.elements.allSatisfy(\.isFinite) })
      #expect(difference(matrix(of: truncated), w) <= 1e-7 * w.norm)
      #expect(isCanonical(truncated, tolerance: 1e-12))
      #expect(try mpo.spectra().spectra.allSatisfy { $0.allSatisfy(\.isFinite) })
    }
  }

  @Test func `bonds asked for above the present ones change nothing`() throws {
    let shape = try MPOShape(rowFactors: [4, 4, 4], columnFactors: [4, 4, 4])
    let mpo = randomMPO(shape, bonds: [3, 9], seed: 14)
    let truncated = try mpo.truncated(to: [16, 16])
    #expect(truncated.bonds == [3, 9])
    #expect(difference(matrix(of: truncated), matrix(of: mpo)) < 1e-12 * matrix(of: mpo).norm)
  }

  private func matrix(of mpo: MPO<Double>) -> Matrix<Double> {
    mpo.matrix(rows: mpo.shape.rows, columns: mpo.shape.columns)
  }

  private func randomMPO(_ shape: MPOShape, bonds: [Int], seed: UInt64) -> MPO<Double> {
    var generator = SeededGenerator(seed: seed)
    let cores = shape.coreShapes(bonds: shape.limitedBonds(bonds)).map { sizes in
      MPOCore(
        shape: sizes, elements: (0..<sizes.reduce(1, *)).map { _ in Double.random(in: -1...1, using: &generator) })
    }
    return MPO(shape: shape, cores: cores)
  }

  private func isCanonical(_ mpo: MPO<Double>, tolerance: Double) -> Bool {
    mpo.cores.enumerated().allSatisfy { index, core in
      if index < mpo.shape.centralIndex {
        let unfolding = core.leftUnfolding
        return difference(unfolding.transposed() * unfolding, .identity(core.rightBond)) < tolerance
      }
      if index > mpo.shape.centralIndex {
        let unfolding = core.rightUnfolding
        return difference(unfolding * unfolding.transposed(), .identity(core.leftBond)) < tolerance
      }
      return true
    }
  }
}
