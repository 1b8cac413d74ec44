import LinearAlgebra
import TestSupport
import Testing

@Suite struct SymmetricEigendecompositionTests {
  @Test func `a known matrix has its eigenvalues in descending order and unit eigenvectors`() throws {
    let matrix = Matrix<Double>(rows: 3, columns: 3, elements: [2, 1, 0, 1, 2, 0, 0, 0, 5])
    let result = try SymmetricEigendecomposition(of: matrix)
    for (value, expected) in zip(result.values, [5, 3, 1]) { #expect(abs(value - Double(expected)) < 1e-12) }
    let half = 0.5.squareRoot()
    #expect(abs(result.vectors[1, 0] - half) < 1e-12 && abs(result.vectors[1, 1] - half) < 1e-12)
    #expect(abs(result.vectors[0, 2] - 1) < 1e-12)
  }

  @Test(arguments: [1, 2, 17, 64])
  func `eigenvectors are orthonormal and rebuild the matrix`(size: Int) throws {
    var generator = SeededGenerator(seed: UInt64(size))
    let x = Matrix<Double>.random(rows: size, columns: size, using: &generator)
    let symmetric = x * x.transposed()
    let result = try SymmetricEigendecomposition(of: symmetric)
    let v = result.vectors
    #expect(difference(v * v.transposed(), .identity(size)) < 1e-12 * Double(size))
    var scaled = v
    for row in 0..<size { for column in 0..<size { scaled[row, column] *= result.values[row] } }
    #expect(difference(v.transposed() * scaled, symmetric) < 1e-12 * symmetric.norm * Double(size))
    let valuesOnly = try SymmetricEigendecomposition.values(of: symmetric)
    for (a, b) in zip(valuesOnly, result.values) { #expect(abs(a - b) < 1e-11 * result.values[0]) }
  }

  @Test(arguments: [1, 2, 17, 64])
  func `a tridiagonal reduction gives all eigenvalues and the leading eigenvectors`(size: Int) throws {
    var generator = SeededGenerator(seed: UInt64(size))
    let x = Matrix<Double>.random(rows: size, columns: size, using: &generator)
    let symmetric = x * x.transposed()
    let expected = try SymmetricEigendecomposition(of: symmetric)
    let reduction = try TridiagonalReduction(of: symmetric)
    for (a, b) in zip(try reduction.eigenvalues(), expected.values) { #expect(abs(a - b) < 1e-11 * expected.values[0]) }
    #expect(try reduction.leadingEigenvectors(0).rows == 0)
    for count in [1, (size + 1) / 2, size] {
      let vectors = try reduction.leadingEigenvectors(count)
      #expect(vectors.rows == count && vectors.columns == size)
      #expect(difference(vectors * symmetric * vectors.transposed(), diagonal(expected.values.prefix(count))) < 1e-10)
      #expect(difference(vectors * vectors.transposed(), .identity(count)) < 1e-12 * Double(size))
    }
  }

  private func diagonal(_ values: ArraySlice<Double>) -> Matrix<Double> {
    Matrix.identity(values.count).scaled(rowsBy: Array(values))
  }

  @Test func `a large matrix has the eigenvalues it was made of`() throws {
    // A reflection of a diagonal: H D H with H = 1 − 2 u uᵀ.
    let size = 1600
    var generator = SeededGenerator(seed: 3)
    let u = (0..<size).map { _ in Double.random(in: -1...1, using: &generator) }
    let length = u.reduce(0) { $0 + $1 * $1 }
    let values = (0..<size).map { Double(size - $0) / Double(size) }
    let du = zip(values, u).map { $0 * $1 }
    let udu = zip(u, du).reduce(0) { $0 + $1.0 * $1.1 }
    let matrix = Matrix<Double>(rows: size, columns: size) { target in
      for row in 0..<size {
        for column in 0..<size {
          let corner = 4 * udu * u[row] * u[column] / (length * length)
          let sides = 2 * (u[row] * du[column] + du[row] * u[column]) / length
          target[row * size + column] = (row == column ? values[row] : 0) - sides + corner
        }
      }
    }
    let copy = matrix
    let found = try SymmetricEigendecomposition.values(of: matrix)
    #expect(zip(found, values).allSatisfy { abs($0 - $1) < 1e-12 })
    #expect(matrix == copy)
  }

  @Test func `an empty matrix has no eigenvalues`() throws {
    #expect(try SymmetricEigendecomposition.values(of: Matrix(rows: 0, columns: 0, elements: [])).isEmpty)
  }
}

@Suite struct GramMatrixTests {
  @Test(arguments: [(5, 3), (3, 5), (9000, 30), (30, 900)])
  func `rows and columns accumulate to the products with the transpose`(rows: Int, columns: Int) {
    var generator = SeededGenerator(seed: 7)
    let x = Matrix<Float>.random(rows: rows, columns: columns, using: &generator)
    let wide = x.converted(to: Double.self)
    var byRows = GramMatrix(size: columns)
    x.elements.withUnsafeBufferPointer { byRows.addRows($0.baseAddress!, rows: rows) }
    #expect(difference(byRows.matrix(), wide.transposed() * wide) < 1e-9 * wide.norm * wide.norm)
    var byColumns = GramMatrix(size: rows)
    x.elements.withUnsafeBufferPointer { byColumns.addColumns($0.baseAddress!, columns: columns) }
    #expect(difference(byColumns.matrix(), wide * wide.transposed()) < 1e-9 * wide.norm * wide.norm)
  }

  @Test(arguments: [(5, 3), (3, 5), (9000, 30), (30, 9000)])
  func `products in single precision are those in double precision to its rounding`(rows: Int, columns: Int) {
    var generator = SeededGenerator(seed: 8)
    let x = Matrix<Float>.random(rows: rows, columns: columns, using: &generator)
    let wide = x.converted(to: Double.self)
    var byRows = GramMatrix(size: columns, precision: .single)
    x.elements.withUnsafeBufferPointer { byRows.addRows($0.baseAddress!, rows: rows) }
    #expect(byRows.isHeld)
    #expect(difference(byRows.matrix(), wide.transposed() * wide) < 1e-6 * wide.norm * wide.norm)
    var byColumns = GramMatrix(size: rows, precision: .single)
    x.elements.withUnsafeBufferPointer { byColumns.addColumns($0.baseAddress!, columns: columns) }
    #expect(difference(byColumns.matrix(), wide * wide.transposed()) < 1e-6 * wide.norm * wide.norm)
  }

  @Test(arguments: [0, 1e-25, 1e19] as [Float])
  func `single precision does not hold what it rounds to zero or infinity`(size: Float) {
    var gram = GramMatrix(size: 2, precision: .single)
    [size, size, 0, size].withUnsafeBufferPointer { gram.addRows($0.baseAddress!, rows: 2) }
    #expect(!gram.isHeld)
  }

  @Test(arguments: [1, 1e-25, 1e17] as [Float])
  func `small singular values are found whatever the size of the elements`(size: Float) throws {
    // Two orthogonal directions, the lesser one far below the noise of single-precision products.
    let elements = [1, 1, 1, 1, 1e-5, -1e-5, 1e-5, -1e-5].map { $0 * size }
    let values = try elements.withUnsafeBufferPointer { try Matrix.singularValues(of: $0, rows: 2, columns: 4) }
    #expect(abs(values[0] / Double(size) - 2) < 1e-6)
    #expect(abs(values[1] / Double(size) - 2e-5) < 1e-7)
  }

  @Test func `singular values of a diagonal matrix are its entries`() throws {
    let matrix: [Float] = [0, 3, 0, 0, 0, 2]
    let values = try matrix.withUnsafeBufferPointer {
      try Matrix.singularValues(of: $0, rows: 2, columns: 3)
    }
    #expect(values.count == 2 && abs(values[0] - 3) < 1e-7 && abs(values[1] - 2) < 1e-7)
  }
}

@Suite struct LinearAlgebraScalarTests {
  @Test func `norms and distances of lengths around the vector width are exact on small integers`() {
    for count in 1...40 {
      let a = (0..<count).map { Float($0) }
      let b = (0..<count).map { Float($0 + 2) }
      let expected = (0..<count).reduce(0) { $0 + $1 * $1 }
      a.withUnsafeBufferPointer { a in
        #expect(Float.squaredNorm(a) == Double(expected))
        b.withUnsafeBufferPointer { #expect(Float.squaredDistance(a, $0) == Double(4 * count)) }
      }
    }
  }

  @Test func `the norm of a matrix with a NaN or an infinity is not finite`() {
    for bad in [Float.nan, .infinity, -.infinity] {
      var values = Array(repeating: Float(1), count: 21)
      values[9] = bad
      #expect(!values.withUnsafeBufferPointer { Float.squaredNorm($0) }.isFinite)
    }
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
