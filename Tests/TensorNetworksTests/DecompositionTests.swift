import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct DecompositionTests {
  static let shapes: [(rows: Int, columns: Int, rowFactors: [Int], columnFactors: [Int])] = [
    (24, 36, [2, 3, 4], [3, 3, 4]),
    (24, 36, [2, 12], [36, 1]),
    (30, 12, [30, 1], [1, 12]),
    (12, 30, [12, 1], [1, 30]),
    (23, 35, [2, 3, 4], [3, 3, 4]),
    (64, 48, [2, 2, 4, 2, 2], [2, 2, 3, 2, 2]),
    (64, 48, [4, 2, 2, 4], [2, 3, 4, 2]),
    (61, 47, [64, 1, 1], [1, 2, 24]),
    (96, 2, [2, 2, 2, 2, 6], [1, 1, 1, 1, 2]),
    (2, 96, [1, 1, 2, 1, 1], [2, 2, 4, 2, 3]),
  ]

  @Test(arguments: shapes)
  func `full-rank decomposition restores the matrix in single and double precision`(
    rows: Int, columns: Int, rowFactors: [Int], columnFactors: [Int]
  ) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    var generator = SeededGenerator(seed: 1)
    let double = Matrix<Double>.random(rows: rows, columns: columns, using: &generator)
    let float = double.converted(to: Float.self)
    #expect(try relativeError(float, shape, shape.fullBonds) < 2e-6)
    #expect(try relativeError(double, shape, shape.fullBonds) < 1e-13)
  }

  @Test(arguments: shapes)
  func `the measured error is the distance to the restored matrix`(
    rows: Int, columns: Int, rowFactors: [Int], columnFactors: [Int]
  ) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    var generator = SeededGenerator(seed: 2)
    let w = Matrix<Double>.random(rows: rows, columns: columns, using: &generator)
    let bonds = shape.fullBonds.map { max(1, $0 / 2) }
    let mpo = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds) }
    let restored = mpo.matrix(rows: rows, columns: columns)
    let measured = w.withView { mpo.squaredDistance(to: $0) }.squareRoot()
    #expect(abs(measured - difference(restored, w)) < 1e-12 * w.norm)
    #expect(mpo.bonds == shape.limitedBonds(bonds))
    for row in 0..<rows {
      for column in stride(from: 0, to: columns, by: 5) {
        #expect(abs(restored[row, column] - element(mpo, row, column)) < 1e-12)
      }
    }
  }

  // From either side first, by the bonds: the side that is cut more.
  @Test(arguments: [[6, 20, 144, 6], [6, 144, 20, 6]])
  func `a matrix of several blocks is decomposed and restored as one of a single block is`(bonds: [Int]) throws {
    let shape = try MPOShape(rowFactors: [2, 6, 16, 6, 2], columnFactors: [3, 4, 16, 4, 3])
    var generator = SeededGenerator(seed: 11)
    let (rows, columns) = (shape.rows, shape.columns)
    let w = Matrix<Float>.random(rows: rows, columns: columns, using: &generator)
    let mpo = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds) }
    let restored = mpo.matrix(rows: rows, columns: columns)
    let distance = difference(restored.converted(to: Double.self), w.converted(to: Double.self))
    #expect(abs(w.withView { mpo.squaredDistance(to: $0) }.squareRoot() / distance - 1) < 1e-6)
    // Orthonormal outer cores: what the truncation leaves and what it takes are orthogonal.
    let kept = mpo.cores[2].elements.withUnsafeBufferPointer { Float.squaredNorm($0) }
    #expect(abs(kept + distance * distance - w.norm * w.norm) < 1e-5 * w.norm * w.norm)
    for (row, column) in [(0, 0), (rows - 1, columns - 1), (1000, 17), (5, 2000)] {
      #expect(abs(Double(restored[row, column]) - element(mpo.converted(to: Double.self), row, column)) < 1e-4)
    }
  }

  @Test(arguments: shapes)
  func `the error stays within the bound of the spectra and reaches it when one bond is cut`(
    rows: Int, columns: Int, rowFactors: [Int], columnFactors: [Int]
  ) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    var generator = SeededGenerator(seed: 3)
    let w = Matrix<Double>.random(rows: shape.rows, columns: shape.columns, using: &generator)
    let spectra = try w.withView { try SingularSpectra(of: $0, shape: shape) }
    #expect(spectra.spectra.map(\.count) == shape.fullBonds)
    for spectrum in spectra.spectra {
      #expect(abs(spectrum.reduce(0) { $0 + $1 * $1 }.squareRoot() - w.norm) < 1e-10 * w.norm)
    }
    for bond in shape.fullBonds.indices where shape.fullBonds[bond] > 1 {
      var bonds = shape.fullBonds
      bonds[bond] = max(1, bonds[bond] * 2 / 3)
      let limited = shape.limitedBonds(bonds)
      let error = try relativeError(w, shape, limited) * w.norm
      let bound = spectra.squaredErrorBound(bonds: limited).squareRoot()
      #expect(error <= bound * (1 + 1e-9))
      if limited.enumerated().allSatisfy({ $0.offset == bond || $0.element == shape.fullBonds[$0.offset] }) {
        #expect(abs(error - bound) < 1e-9 * w.norm)
      }
    }
    let half = shape.limitedBonds(shape.fullBonds.map { max(1, $0 / 2) })
    #expect(
      try relativeError(w, shape, half) * w.norm
        <= spectra.squaredErrorBound(bonds: half).squareRoot() * (1 + 1e-9))
  }

  @Test func `auxiliary tensors are isometries and the central tensor carries the norm`() throws {
    let shape = try MPOShape(rowFactors: [2, 2, 4, 2, 2], columnFactors: [2, 3, 4, 2, 2])
    var generator = SeededGenerator(seed: 4)
    let w = Matrix<Double>.random(rows: 64, columns: 96, using: &generator)
    let mpo = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: [3, 9, 7, 3]) }
    for (index, core) in mpo.cores.enumerated() where index < shape.centralIndex {
      let unfolding = core.leftUnfolding
      #expect(difference(unfolding.transposed() * unfolding, .identity(core.rightBond)) < 1e-12)
    }
    for (index, core) in mpo.cores.enumerated() where index > shape.centralIndex {
      let unfolding = core.rightUnfolding
      #expect(difference(unfolding * unfolding.transposed(), .identity(core.leftBond)) < 1e-12)
    }
    let central = mpo.cores[shape.centralIndex].leftUnfolding
    #expect(abs(central.norm - mpo.matrix(rows: 64, columns: 96).norm) < 1e-11)
  }

  @Test(arguments: ["zero", "constant", "rank one", "duplicated rows", "one entry"])
  func `degenerate matrices are restored, also at the bonds of their rank`(kind: String) throws {
    let shape = try MPOShape(rowFactors: [2, 4, 2, 2], columnFactors: [3, 2, 4, 2])
    let elements: [Float] = (0..<(32 * 48)).map { index in
      let (row, column) = (index / 48, index % 48)
      return switch kind {
      case "zero": 0
      case "constant": 3
      case "rank one": Float(row + 1) * Float(column - 7)
      case "duplicated rows": Float((row % 2) * 5 + column)
      default: index == 77 ? 1e-20 : 0
      }
    }
    let w = Matrix(rows: 32, columns: 48, elements: elements)
    let full = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: shape.fullBonds) }
    #expect(full.cores.allSatisfy { $0.elements.allSatisfy(\.isFinite) })
    #expect(w.withView { full.squaredDistance(to: $0) }.squareRoot() <= 2e-6 * w.norm)
    let spectra = try w.withView { try SingularSpectra(of: $0, shape: shape) }
    let bonds = spectra.bonds(forError: 1e-6 * w.norm)
    #expect(zip(bonds, shape.fullBonds).contains { $0 < $1 })
    let cut = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds) }
    #expect(w.withView { cut.squaredDistance(to: $0) }.squareRoot() <= 3e-6 * w.norm)
  }

  @Test(arguments: [0x1p-1060, 1e-300, 1e-160, 1e-30, 1e30, 1e160, 1e300])
  func `matrices whose squares vanish or overflow are decomposed like any other`(magnitude: Double) throws {
    let shape = try MPOShape(rowFactors: [2, 4, 2, 2], columnFactors: [3, 2, 4, 2])
    var generator = SeededGenerator(seed: 7)
    let w = Matrix<Double>.random(rows: 32, columns: 48, using: &generator)
    try checkScaled(w, shape, by: magnitude, tolerance: magnitude == 0x1p-1060 ? 1e-3 : 1e-12)
    if magnitude > 1e-40, magnitude < 1e40 {
      try checkScaled(w.converted(to: Float.self), shape, by: Float(magnitude), tolerance: 1e-5)
    }
  }

  private func checkScaled<Scalar>(_ w: Matrix<Scalar>, _ shape: MPOShape, by scale: Scalar, tolerance: Double) throws {
    let scaled = Matrix(rows: w.rows, columns: w.columns, elements: w.elements.map { $0 * scale })
    let norm = scaled.withView { $0.norm }
    #expect(abs(norm / Double(scale) / w.norm - 1) < tolerance)
    for bonds in [[2, 7, 3], [6, 7, 4], [3, 20, 4], shape.fullBonds] {
      let error = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds).relativeError(to: $0) }
      let mpo = try scaled.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds) }
      let compact = try mpo.compacted()
      #expect(abs(scaled.withView { mpo.relativeError(to: $0) } - error) < tolerance)
      #expect(abs(scaled.withView { compact.mpo.relativeError(to: $0) } - error) < tolerance)
    }
    let expected = try w.withView { try SingularSpectra(of: $0, shape: shape) }
    let spectra = try scaled.withView { try SingularSpectra(of: $0, shape: shape) }
    for (found, reference) in zip(spectra.spectra, expected.spectra) {
      for (a, b) in zip(found, reference) { #expect(abs(a / Double(scale) - b) < tolerance * w.norm) }
    }
    let values = try scaled.elements.withUnsafeBufferPointer {
      try Matrix.singularValues(of: $0, rows: w.rows, columns: w.columns)
    }
    let known = try SingularValueDecomposition(of: w.converted(to: Double.self)).values
    for (a, b) in zip(values, known) { #expect(abs(a / Double(scale) - b) < max(1e-7, tolerance) * w.norm) }
  }

  @Test func `sides that are not truncated keep the matrix's own order, bit by bit`() throws {
    let shape = try MPOShape(rowFactors: [2, 3, 4, 2], columnFactors: [3, 2, 4, 3])
    var generator = SeededGenerator(seed: 8)
    let w = Matrix<Float>.random(rows: shape.rows, columns: shape.columns, using: &generator)
    for bonds in [[6, 36, 3], [6, 20, 6], [4, 20, 6], [4, 20, 3]] {
      let limited = shape.limitedBonds(bonds)
      let mpo = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: limited) }
      for (bond, core) in zip(limited, mpo.cores) where core.leftBond * core.rowFactor * core.columnFactor == bond {
        #expect(core.leftUnfolding == .identity(bond))
      }
      let last = mpo.cores[3]
      #expect((last.rightUnfolding == .identity(6)) == (limited[2] == 6))
    }
  }

  @Test func `bonds for an error keep the measured error below it`() throws {
    let shape = try MPOShape(rowFactors: [4, 4, 4], columnFactors: [4, 4, 4])
    var generator = SeededGenerator(seed: 5)
    let w = Matrix<Double>.random(rows: 64, columns: 64, using: &generator)
    let spectra = try w.withView { try SingularSpectra(of: $0, shape: shape) }
    for error in [0.5, 0.1, 0.01] {
      let bonds = spectra.bonds(forError: error * w.norm)
      #expect(try relativeError(w, shape, bonds) <= error)
    }
  }

  @Test func `entropy is zero for a product and the logarithm of the bond for equal values`() {
    let spectra = SingularSpectra([[1, 0, 0], [2, 2, 2, 2], [0, 0]])
    let entropies = spectra.entanglementEntropies
    #expect(entropies[0] == 0 && abs(entropies[1] - 1.3862943611198906) < 1e-12 && entropies[2] == 0)
  }

  @Test func `two-site shapes give the truncated singular value decomposition`() throws {
    var generator = SeededGenerator(seed: 6)
    let w = Matrix<Double>.random(rows: 40, columns: 25, using: &generator)
    let values = try w.elements.withUnsafeBufferPointer {
      try Matrix.singularValues(of: $0, rows: 40, columns: 25)
    }
    let shape = MPOShape.lowRank(rows: 40, columns: 25)
    for rank in [1, 7, 24, 25] {
      let expected = values.dropFirst(rank).reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(abs(try relativeError(w, shape, [rank]) * w.norm - expected) < 1e-7 * w.norm)
    }
  }

  @Test(arguments: [[24, 16, 16, 24], [12, 90, 90, 12], [7, 30, 200, 20], [24, 192, 96, 24], [24, 96, 192, 24]])
  func `what a profile leaves changes no bit of a decomposition`(bonds: [Int]) throws {
    func check<Scalar: LinearAlgebraScalar>(_ type: Scalar.Type) throws {
      let shape = try MPOShape(rowFactors: [4, 2, 3, 2, 4], columnFactors: [6, 4, 2, 4, 6])
      var generator = SeededGenerator(seed: 8)
      let w = Matrix<Scalar>.random(rows: 192, columns: 1152, using: &generator)
      try w.withView { view in
        let found = try SingularSpectra.withReductions(of: view, shape: shape)
        #expect(found.spectra == (try SingularSpectra(of: view, shape: shape)))
        let reductions = try #require(found.reductions)
        for gauge in [Gauge.canonical, .compact] {
          let known = try GaugedMPO(
            decomposing: view, shape: shape, bonds: bonds, gauge: gauge, reductions: reductions)
          #expect(known.mpo == (try GaugedMPO(decomposing: view, shape: shape, bonds: bonds, gauge: gauge).mpo))
        }
        let (values, factors) = try SingularSpectra.ofFactorizations(of: view)
        #expect(values.count == 192)
        let lowRank = MPOShape.lowRank(rows: 192, columns: 1152)
        let known = try MPO(decomposing: view, shape: lowRank, bonds: [40], reductions: #require(factors))
        #expect(known == (try MPO(decomposing: view, shape: lowRank, bonds: [40])))
      }
    }
    try check(Float.self)
    try check(Double.self)
  }

  private func relativeError<Scalar>(_ w: Matrix<Scalar>, _ shape: MPOShape, _ bonds: [Int]) throws -> Double {
    try w.withView { view in
      try MPO(decomposing: view, shape: shape, bonds: bonds).squaredDistance(to: view).squareRoot() / w.norm
    }
  }

  /// One element by the definition of a matrix product operator.
  private func element(_ mpo: MPO<Double>, _ row: Int, _ column: Int) -> Double {
    var (i, j) = (row, column)
    var digits: [(Int, Int)] = []
    for core in mpo.cores.reversed() {
      digits.append((i % core.rowFactor, j % core.columnFactor))
      (i, j) = (i / core.rowFactor, j / core.columnFactor)
    }
    var vector = [1.0]
    for (core, (i, j)) in zip(mpo.cores, digits.reversed()) {
      vector = (0..<core.rightBond).map { right in
        (0..<core.leftBond).reduce(0) { sum, left in
          let place = ((left * core.rowFactor + i) * core.columnFactor + j) * core.rightBond + right
          return sum + vector[left] * core.elements[place]
        }
      }
    }
    return vector[0]
  }
}

extension Matrix {
  static func random(rows: Int, columns: Int, using generator: inout SeededGenerator) -> Matrix {
    Matrix(
      rows: rows, columns: columns,
      elements: (0..<(rows * columns)).map { _ in Scalar(Double.random(in: -1...1, using: &generator)) })
  }
}

func difference(_ a: Matrix<Double>, _ b: Matrix<Double>) -> Double {
  Matrix(rows: a.rows, columns: a.columns, elements: zip(a.elements, b.elements).map { $0 - $1 }).norm
}
