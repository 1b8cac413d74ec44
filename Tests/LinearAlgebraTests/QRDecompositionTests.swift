import LinearAlgebra
import Testing

@Suite struct QRDecompositionTests {
  @Test(arguments: [(7, 3), (3, 7), (5, 5), (1, 4), (4, 1), (200, 64), (64, 200)])
  func `Q R is the matrix, Q has orthonormal columns, R is upper triangular`(rows: Int, columns: Int) throws {
    var state: UInt64 = 3
    let elements = (0..<(rows * columns)).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Double(state >> 11) / Double(1 << 53) - 0.5
    }
    try check(Matrix(rows: rows, columns: columns, elements: elements))
  }

  @Test func `rank-deficient and zero matrices have an orthonormal Q all the same`() throws {
    try check(Matrix(rows: 6, columns: 4, elements: Array(repeating: 0, count: 24)))
    try check(Matrix(rows: 6, columns: 4, elements: (0..<24).map { Double($0 / 4) }))
    try check(Matrix(rows: 4, columns: 6, elements: Array(repeating: 1e-200, count: 24)))
  }

  private func check(_ matrix: Matrix<Double>) throws {
    let decomposition = try QRDecomposition(of: matrix)
    let (q, r) = (decomposition.q, decomposition.r)
    let kept = min(matrix.rows, matrix.columns)
    #expect(q.rows == matrix.rows && q.columns == kept && r.rows == kept && r.columns == matrix.columns)
    #expect(distance(q * r, matrix) <= 1e-13 * matrix.norm)
    #expect(distance(q.transposed() * q, .identity(kept)) < 1e-12)
    for row in 0..<kept {
      for column in 0..<min(row, matrix.columns) { #expect(r[row, column] == 0) }
    }
  }

  private func distance(_ a: Matrix<Double>, _ b: Matrix<Double>) -> Double {
    Matrix(rows: a.rows, columns: a.columns, elements: zip(a.elements, b.elements).map { $0 - $1 }).norm
  }
}
