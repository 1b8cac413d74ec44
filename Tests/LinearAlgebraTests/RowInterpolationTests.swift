import LinearAlgebra
import TestSupport
import Testing

@Suite struct RowInterpolationTests {
  @Test(arguments: [(1, 1), (5, 1), (7, 3), (5, 5), (60, 20), (200, 64), (65, 64)])
  func `all rows follow from the pivots, no coefficient exceeds the bound`(rows: Int, columns: Int) throws {
    for seed in 1...10 {
      var generator = SeededGenerator(seed: UInt64(seed))
      let matrix = Matrix<Double>.random(rows: rows, columns: columns, using: &generator)
      try check(matrix, tolerance: 1e-12)
      try check(QRDecomposition(of: matrix).q, tolerance: 1e-13)
    }
  }

  @Test(arguments: [0, 1, 3]) func `a matrix of a lower rank has bounded coefficients`(rank: Int) throws {
    var generator = SeededGenerator(seed: 9)
    let left = Matrix<Double>.random(rows: 30, columns: max(1, rank), using: &generator)
    let right = Matrix<Double>.random(rows: max(1, rank), columns: 8, using: &generator)
    let matrix = left * right
    try check(rank == 0 ? Matrix(rows: 30, columns: 8, elements: Array(repeating: 0, count: 240)) : matrix)
    // Columns that are zero, columns that are equal, and rows that are.
    var zeros = Matrix<Double>.random(rows: 30, columns: 8, using: &generator)
    for row in 0..<30 {
      zeros[row, 2] = 0
      zeros[row, 6] = zeros[row, 5]
    }
    try check(zeros)
    try check(Matrix(rows: 30, columns: 8, elements: (0..<240).map { zeros.elements[$0 % 24] }))
  }

  @Test(arguments: [1e-300, 1e-30, 1e30, 1e300]) func `the magnitude of a matrix does not matter`(scale: Double) throws
  {
    var generator = SeededGenerator(seed: 10)
    let matrix = Matrix<Double>.random(rows: 20, columns: 6, using: &generator)
    let scaled = Matrix(rows: 20, columns: 6, elements: matrix.elements.map { $0 * scale })
    #expect(try RowInterpolation(of: scaled).pivots == RowInterpolation(of: matrix).pivots)
    try check(scaled, tolerance: 1e-12, scale: scale)
    // Columns of very different magnitudes.
    let uneven = matrix.scaled(columnsBy: [1, 1e-10, scale, 1e5, 1, 1e-3])
    #expect(try RowInterpolation(of: uneven).coefficients.elements.allSatisfy { abs($0) <= 2 })
  }

  // On this matrix partial pivoting exchanges nothing, and its coefficients grow to 2^(n−1).
  @Test func `exchanges bound coefficients that partial pivoting lets grow`() throws {
    let size = 24
    var matrix = Matrix<Double>.identity(size + 1)
    matrix = Matrix(
      rows: size + 1, columns: size,
      elements: (0..<((size + 1) * size)).map { index in
        let (row, column) = (index / size, index % size)
        return row == column ? 1 : row > column ? -1 : 0
      })
    try check(matrix)
  }

  @Test func `a matrix that has its pivots is kept`() throws {
    let matrix = Matrix<Double>(rows: 4, columns: 2, elements: [0.5, -1, 1, 0, 0.25, 1, 0, 1])
    let interpolation = try RowInterpolation(of: matrix)
    #expect(interpolation.pivots == [1, 3])
    #expect(interpolation.coefficients == matrix)
    let identity = try RowInterpolation(of: .identity(3))
    #expect(identity.pivots == [0, 1, 2] && identity.coefficients == .identity(3))
  }

  private func check(_ matrix: Matrix<Double>, tolerance: Double = 1e-12, scale: Double = 1) throws {
    let interpolation = try RowInterpolation(of: matrix)
    let (coefficients, pivots) = (interpolation.coefficients, interpolation.pivots)
    #expect(pivots.count == matrix.columns && zip(pivots, pivots.dropFirst()).allSatisfy(<))
    #expect(coefficients.elements.allSatisfy { abs($0) <= RowInterpolation.bound })
    for (column, row) in pivots.enumerated() {
      for other in 0..<matrix.columns { #expect(coefficients[row, other] == (other == column ? 1 : 0)) }
    }
    // Brought to 1, so that the norms can be squared.
    func unscaled(_ matrix: Matrix<Double>) -> Matrix<Double> {
      Matrix(rows: matrix.rows, columns: matrix.columns, elements: matrix.elements.map { $0 / scale })
    }
    let rows = Matrix(
      rows: pivots.count, columns: matrix.columns,
      elements: pivots.flatMap { matrix.elements[($0 * matrix.columns)..<(($0 + 1) * matrix.columns)] })
    let expected = unscaled(matrix)
    #expect(difference(coefficients * unscaled(rows), expected) <= tolerance * expected.norm)
  }
}

@Suite struct SingularValueDecompositionTests {
  @Test(arguments: [(1, 1), (7, 3), (3, 7), (40, 40), (20, 300)])
  func `the factors are isometries and multiply to the matrix, values falling`(rows: Int, columns: Int) throws {
    var generator = SeededGenerator(seed: UInt64(rows))
    let matrix = Matrix<Double>.random(rows: rows, columns: columns, using: &generator)
    let copy = matrix
    let result = try SingularValueDecomposition(of: matrix)
    let count = min(rows, columns)
    #expect(matrix == copy && result.values.count == count && result.values == result.values.sorted(by: >))
    #expect(difference(result.left.transposed() * result.left, .identity(count)) < 1e-12)
    #expect(difference(result.right * result.right.transposed(), .identity(count)) < 1e-12)
    let product = result.left.scaled(columnsBy: result.values) * result.right
    #expect(difference(product, matrix) < 1e-13 * matrix.norm * Double(count))
  }

  @Test func `a zero matrix has zero singular values and isometries all the same`() throws {
    let result = try SingularValueDecomposition(
      of: Matrix(rows: 3, columns: 4, elements: Array(repeating: 0, count: 12)))
    #expect(result.values == [0, 0, 0])
    #expect(difference(result.left.transposed() * result.left, .identity(3)) < 1e-14)
  }
}
