import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct SharedFactorizationTests {
  private static func matrix(_ rows: Int, _ columns: Int, seed: UInt64) -> Matrix<Double> {
    var generator = SeededGenerator(seed: seed)
    return .random(rows: rows, columns: columns, using: &generator)
  }

  private static func moment(_ size: Int, seed: UInt64) -> Matrix<Double> {
    let x = matrix(size, 2 * size, seed: seed)
    return x * x.transposed()
  }

  /// Three matrices of 6, 9 and 3 rows.
  private static func members(
    rows: (Int, Int) -> Metric.Side, columns: (Int) -> Metric.Side, weights: [Double] = [1, 1, 1]
  ) throws -> [SharedFactorization.Member] {
    try [6, 9, 3].enumerated().map { index, size in
      SharedFactorization.Member(
        matrix: matrix(size, 12, seed: UInt64(index)), rows: try MetricRoot(of: rows(index, size), ridge: 0),
        columns: columns(index), weight: weights[index])
    }
  }

  /// Of each member in the operator of a rank: its squared error in its own metric over its squared norm.
  private func measured(
    _ members: [SharedFactorization.Member], rows: (Int, Int) -> Metric.Side, rank: Int
  ) throws -> [Double] {
    let mpo: MPO<Double> = try SharedFactorization(members).lowRank(rank)
    let restored = mpo.matrix(rows: 18, columns: 12)
    var start = 0
    return members.enumerated().map { index, member in
      let count = member.matrix.rows
      var difference = member.matrix
      difference.subtract(
        Matrix(rows: count, columns: 12, elements: Array(restored.elements[start * 12..<(start + count) * 12])))
      start += count
      let metric = Metric(rows: rows(index, count), columns: member.columns)
      return metric.squaredNorm(of: difference) / metric.squaredNorm(of: member.matrix)
    }
  }

  static let metrics:
    [(name: String, rows: @Sendable (Int, Int) -> Metric.Side, columns: @Sendable (Int) -> Metric.Side)] =
      [
        ("none", { _, _ in .identity }, { _ in .identity }),
        ("one for all inputs", { .full(moment($1, seed: UInt64(10 + $0))) }, { _ in .full(moment(12, seed: 5)) }),
        ("each its own", { .full(moment($1, seed: UInt64(10 + $0))) }, { .full(moment(12, seed: UInt64(20 + $0))) }),
        (
          "diagonals", { _, size in .diagonal((1...size).map(Double.init)) },
          { member in .diagonal((1...12).map { Double($0 + member) }) }
        ),
      ]

  @Test(arguments: metrics)
  func `the errors that are predicted for each matrix are those of the operator`(
    name: String, rows: @Sendable (Int, Int) -> Metric.Side, columns: @Sendable (Int) -> Metric.Side
  ) throws {
    let members = try Self.members(rows: rows, columns: columns, weights: [1, 0.3, 4])
    let predicted = try SharedFactorization(members).squaredErrors()
    #expect(predicted.map(\.count) == [13, 13, 13])
    for rank in [1, 4, 11, 12] {
      for (index, error) in try measured(members, rows: rows, rank: rank).enumerated() {
        #expect(abs(error - predicted[index][rank]) < 1e-9)
      }
    }
    #expect(predicted.allSatisfy { abs($0[0] - 1) < 1e-12 && $0[12] < 1e-12 })
  }

  @Test func `with one metric of the inputs nothing of the rank is nearer`() throws {
    let (_, rows, columns) = Self.metrics[1]
    let members = try Self.members(rows: rows, columns: columns)
    let norms = members.enumerated().map {
      Metric(rows: rows($0, $1.matrix.rows), columns: $1.columns).squaredNorm(of: $1.matrix)
    }
    let found = zip(try SharedFactorization(members).squaredErrors(), norms).reduce(0) { $0 + $1.0[4] * $1.1 }
    // The stack as one matrix, its outputs' metric block-diagonal.
    var moment = Matrix<Double>(rows: 18, columns: 18, elements: Array(repeating: 0, count: 18 * 18))
    var start = 0
    for (index, member) in members.enumerated() {
      guard case .full(let block) = rows(index, member.matrix.rows) else { continue }
      for row in 0..<block.rows {
        for column in 0..<block.rows { moment[start + row, start + column] = block[row, column] }
      }
      start += block.rows
    }
    let stack = Matrix(rows: 18, columns: 12, elements: members.flatMap(\.matrix.elements))
    let metric = try PreparedMetric(Metric(rows: .full(moment), columns: columns(0)))
    let values = try stack.withView { try metric.spectrum(of: $0)?.singularValues() ?? [] }
    #expect(abs(found / values.dropFirst(4).reduce(0) { $0 + $1 * $1 } - 1) < 1e-9)
  }

  @Test func `the operator of the transposed matrices has the same cores, turned`() throws {
    let members = try Self.members(rows: Self.metrics[0].rows, columns: Self.metrics[0].columns)
    let mpo: MPO<Double> = try SharedFactorization(members).lowRank(5)
    let turned = mpo.transposedLowRank()
    #expect(turned.shape == .lowRank(rows: 12, columns: 18))
    #expect(turned.matrix(rows: 12, columns: 18).transposed() == mpo.matrix(rows: 18, columns: 12))
  }
}
