import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct RoundedMatrixTests {
  static let all = IntegerGroups.bitChoices.flatMap { bits in
    IntegerGroups.groupChoices.compactMap { IntegerGroups(bits: bits, group: $0) }
  }

  private func random(_ rows: Int, _ columns: Int, seed: UInt64) -> Matrix<Float> {
    var generator = SeededGenerator(seed: seed)
    return Matrix<Float>.random(rows: rows, columns: columns, using: &generator)
  }

  /// A second moment with a few strong directions, as those of activations are.
  private func root(_ size: Int, seed: UInt64) throws -> MetricRoot {
    var generator = SeededGenerator(seed: seed)
    var x = Matrix<Double>.random(rows: size, columns: 2 * size, using: &generator)
    for row in 0..<size { for column in 0..<(2 * size) { x[row, column] *= 4 / Double(1 + column) } }
    return try MetricRoot(of: .full(x * x.transposed()), ridge: 0.02)
  }

  private func error(
    _ rounded: RoundedMatrix, _ exact: Matrix<Float>, rows: MetricRoot, columns: MetricRoot
  ) -> Double {
    var difference = exact.converted(to: Double.self)
    difference.subtract(rounded.matrix())
    return rows.transposedTimes(columns.timesFromRight(difference)).norm
  }

  @Test func `names of integers are read as they are written`() {
    for integers in Self.all { #expect(IntegerGroups(integers.description) == integers) }
    for text in ["int7", "int4/48", "int4/", "4", "int", "INT4", "int4/32/2"] { #expect(IntegerGroups(text) == nil) }
    #expect(IntegerGroups("int4/32")?.description == "int4")
  }

  @Test(arguments: all)
  func `without a metric each number is within a step of its own, scales are of half precision`(
    integers: IntegerGroups
  ) {
    let exact = random(7, 150, seed: 3)
    let rounded = RoundedMatrix(rounding: exact, to: integers)
    #expect(rounded.scales.count == 7 * integers.scaleCount(columns: 150))
    #expect(rounded.scales.allSatisfy { Float(Float16($0)) == $0 })
    #expect(rounded.codes.allSatisfy { $0 <= integers.largestCode })
    let norm = exact.converted(to: Double.self).norm
    let relative = error(rounded, exact, rows: .identity, columns: .identity) / norm
    // Uniform numbers between −1 and 1: a step is 2 over the number of levels.
    #expect(relative < 1.15 / Double(integers.largestCode) && relative > 0.5 / Double(integers.largestCode))
  }

  @Test func `zeros stay zeros where the grid has them, and in groups that have nothing else`() throws {
    var exact = random(4, 64, seed: 5)
    for column in 0..<32 { exact[1, column] = 0 }
    exact[2, 40] = 0
    for integers in try ["int8", "int6", "int5", "int4"].map({ try #require(IntegerGroups($0)) }) {
      let restored = RoundedMatrix(rounding: exact, to: integers).matrix(as: Float.self)
      #expect((0..<32).allSatisfy { restored[1, $0] == 0 } && restored[2, 40] == 0)
    }
    let two = RoundedMatrix(rounding: exact, to: try #require(IntegerGroups("int2"))).matrix(as: Float.self)
    #expect((0..<32).allSatisfy { two[1, $0] == 0 } && two[2, 40] != 0)
  }

  /// Sizes that are not multiples of tiles and groups.
  @Test(arguments: ["int4", "int3/128", "int2/16"])
  func `feedback on either side lowers the error in the metric, on both sides most`(name: String) throws {
    let integers = try #require(IntegerGroups(name))
    let exact = random(83, 150, seed: 7)
    let (rows, columns) = (try root(83, seed: 1), try root(150, seed: 2))
    func error(feedback: (rows: Bool, columns: Bool)) -> Double {
      let rounded = RoundedMatrix(
        rounding: exact, to: integers, rows: feedback.rows ? rows : .identity,
        columns: feedback.columns ? columns : .identity)
      return self.error(rounded, exact, rows: rows, columns: columns)
    }
    let nearest = error(feedback: (false, false))
    let (ofRows, ofColumns) = (error(feedback: (true, false)), error(feedback: (false, true)))
    let both = error(feedback: (true, true))
    #expect(ofRows < 0.9 * nearest && ofColumns < 0.9 * nearest)
    #expect(both < 0.9 * min(ofRows, ofColumns))
  }

  /// The tiles are only a way to compute it.
  @Test func `rounding is that of the nearest plane, number by number`() throws {
    let integers = try #require(IntegerGroups("int8"))
    let exact = random(70, 80, seed: 8)
    let (rows, columns) = (try root(70, seed: 3), try root(80, seed: 4))
    let rounded = RoundedMatrix(rounding: exact, to: integers, rows: rows, columns: columns)
    var difference = rounded.matrix(as: Double.self)
    difference.subtract(exact.converted(to: Double.self))
    let whitened = rows.transposedTimes(columns.timesFromRight(difference))
    guard case .triangular(let left) = rows.factor, case .triangular(let right) = columns.factor else { return }
    var beyond = 0
    for row in 0..<70 {
      for column in 0..<80 {
        // What is left of each number is at most half a step, but where it left the range of the scale.
        let step = Double(abs(rounded.scales[row * 3 + column / 32]))
        let scale = left.lower[row, row] * right.lower[column, column]
        if abs(whitened[row, column]) > (0.5 + 1e-3) * step * scale { beyond += 1 }
      }
    }
    #expect(beyond < 70 * 80 / 50)
  }

  @Test func `the error that is foreseen is that of rounding`() throws {
    let exact = random(90, 128, seed: 11)
    let (rows, columns) = (try root(90, seed: 5), try root(128, seed: 6))
    let integers = try #require(IntegerGroups("int8/64"))
    let prepared = PreparedMetric.sides(rows: rows, columns: columns)
    let squaredNorm = square(rows.transposedTimes(columns.timesFromRight(exact.converted(to: Double.self))).norm)
    let foreseen = exact.withView { prepared.groupErrors(of: $0, groups: [64], squaredNorm: squaredNorm)[0] }
    let rounded = RoundedMatrix(rounding: exact, to: integers, rows: rows, columns: columns)
    let found = square(error(rounded, exact, rows: rows, columns: columns)) / squaredNorm
    #expect(abs(found / (foreseen / 12 / 128 / 128) - 1) < 0.1)
  }

  @Test(arguments: [Gauge.compact, .canonical], [(40, 96), (96, 40)])
  func `the second core of a factorisation makes up for the rounding of the first`(
    gauge: Gauge, sides: (Int, Int)
  ) throws {
    let exact = random(sides.0, sides.1, seed: 13).converted(to: Double.self)
    let (rows, columns) = (try root(sides.0, seed: 7), try root(sides.1, seed: 8))
    let metric = PreparedMetric.sides(rows: rows, columns: columns)
    let integers = try #require(IntegerGroups("int4"))
    try exact.withView { view in
      let spectrum = try #require(try metric.spectrum(of: view))
      let gauged = try #require(try metric.lowRank(of: view, rank: 20, spectrum: spectrum)).gauged(gauge)
      func squaredError(_ mpo: MPO<Double>) -> Double {
        var difference = exact
        difference.subtract(mpo.matrix(rows: view.rows, columns: view.columns))
        return square(rows.transposedTimes(columns.timesFromRight(difference)).norm)
      }
      let truncation = squaredError(gauged.mpo)
      let rounded = try metric.rounded(gauged, of: view, central: integers, auxiliary: integers)
      let nearest = try PreparedMetric(.frobenius).rounded(gauged, of: view, central: integers, auxiliary: integers)
      let centre = gauged.mpo.shape.centralIndex
      let centralOnly = try metric.rounded(gauged, of: view, central: integers, auxiliary: nil)
      #expect(
        centralOnly.cores[1 - centre] == nil && centralOnly.gauged.mpo.cores[1 - centre] == gauged.mpo.cores[1 - centre]
      )
      #expect(squaredError(rounded.gauged.mpo) < 0.7 * squaredError(nearest.gauged.mpo))
      #expect(squaredError(rounded.gauged.mpo) < 3 * truncation)
      // What is stored is what the chain has.
      #expect(rounded.gauged.pivots == gauged.pivots)
      for (index, core) in rounded.cores.enumerated() {
        let core = try #require(core)
        let pivots = gauged.pivots[index]?.count ?? 0
        #expect(core.codes.count == gauged.mpo.cores[index].elements.count - pivots * pivots)
        #expect(core.scales.contains { $0 != 0 })
      }
    }
  }
}

private func square(_ value: Double) -> Double { value * value }
