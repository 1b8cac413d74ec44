import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct MetricTests {
  private static func spread(_ size: Int, seed: UInt64) -> Matrix<Double> {
    var generator = SeededGenerator(seed: seed)
    var x = Matrix<Double>.random(rows: size, columns: 2 * size, using: &generator)
    for row in 0..<size {
      for column in 0..<(2 * size) { x[row, column] *= 3 / Double(1 + row) }
    }
    return x * x.transposed()
  }

  static let metrics: [(name: String, metric: Metric)] = [
    ("identity", .frobenius),
    ("inputs", Metric(columns: .full(spread(20, seed: 1)))),
    ("outputs", Metric(rows: .full(spread(12, seed: 2)))),
    ("both", Metric(rows: .full(spread(12, seed: 3)), columns: .full(spread(20, seed: 4)))),
    (
      "diagonals",
      Metric(rows: .diagonal((1...12).map { 1 / Double($0) }), columns: .diagonal((1...20).map(Double.init)))
    ),
  ]

  private func matrix(_ rows: Int, _ columns: Int) -> Matrix<Double> {
    var generator = SeededGenerator(seed: 9)
    return .random(rows: rows, columns: columns, using: &generator)
  }

  private func squaredError(_ mpo: MPO<Double>, _ w: Matrix<Double>, _ metric: Metric) -> Double {
    let restored = mpo.matrix(rows: w.rows, columns: w.columns)
    let difference = Matrix(
      rows: w.rows, columns: w.columns, elements: zip(w.elements, restored.elements).map { $0 - $1 })
    return zip(difference.elements, metric.applied(to: difference).elements).reduce(0) { $0 + $1.0 * $1.1 }
  }

  @Test(arguments: metrics)
  func `a factorisation in the metric has the error of the discarded singular values, whichever side is longer`(
    name: String, metric: Metric
  ) throws {
    let wide = matrix(12, 20)
    for (w, metric) in [(wide, metric), (wide.transposed(), metric.transposed)] {
      let prepared = try PreparedMetric(metric)
      let values = try w.withView { try prepared.spectrum(of: $0)?.singularValues() ?? [] }
      #expect(values.count == 12)
      for rank in [1, 5, 12] {
        let mpo = try lowRank(w, rank, prepared)
        let expected = values.dropFirst(rank).reduce(0) { $0 + $1 * $1 }
        #expect(abs(squaredError(mpo, w, metric) - expected) <= 1e-9 * values.reduce(0) { $0 + $1 * $1 })
        // The core that is not central is an isometry.
        let isometry =
          mpo.shape.centralIndex == 1 ? mpo.cores[0].leftUnfolding : mpo.cores[1].rightUnfolding.transposed()
        #expect(difference(isometry.transposed() * isometry, .identity(rank)) < 1e-9)
      }
    }
  }

  @Test func `no other factorisation of the rank is nearer in the metric`() throws {
    let metric = Self.metrics[3].metric
    let w = matrix(12, 20)
    let best = try lowRank(w, 4, PreparedMetric(metric))
    let plain = try lowRank(w, 4, PreparedMetric(.frobenius))
    #expect(squaredError(best, w, metric) < squaredError(plain, w, metric))
    var options = RefinementOptions()
    options.maximumSteps = 2000
    options.tolerance = 1e-9
    let refined = w.withView { plain.refined(toward: $0, metric: metric, options: options) }
    #expect(squaredError(best, w, metric) <= squaredError(refined, w, metric) * (1 + 1e-9))
    #expect(squaredError(refined, w, metric) < 1.05 * squaredError(best, w, metric))
  }

  @Test(arguments: metrics)
  func `refinement of five sites lowers the error in the metric and never raises it`(
    name: String, metric: Metric
  ) throws {
    let w = matrix(12, 20)
    let shape = try MPOShape(rowFactors: [2, 1, 3, 2, 1], columnFactors: [2, 2, 2, 1, 3])
    let start = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: [3, 4, 4, 3]) }
    var options = RefinementOptions()
    var last = squaredError(start, w, metric)
    for steps in [1, 5, 50] {
      options.maximumSteps = steps
      let refined = w.withView { start.refined(toward: $0, metric: metric, options: options) }
      let error = squaredError(refined, w, metric)
      #expect(error <= last * (1 + 1e-12))
      #expect(refined.bonds == start.bonds)
      last = error
    }
    #expect(last < (metric == .frobenius ? 1.0 : 0.9) * squaredError(start, w, metric))
  }

  @Test func `padding is left out of the refined error`() throws {
    let w = matrix(11, 19)
    let metric = Metric(rows: .full(Self.spread(11, seed: 5)), columns: .full(Self.spread(19, seed: 6)))
    let shape = try MPOShape(rowFactors: [2, 3, 2], columnFactors: [2, 2, 5])
    let start = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: [3, 6]) }
    let refined = w.withView { start.refined(toward: $0, metric: metric) }
    #expect(squaredError(refined, w, metric) < 0.9 * squaredError(start, w, metric))
  }

  @Test func `element weights: kept entries of a mask are fitted better`() throws {
    let w = matrix(12, 20)
    let mask = Matrix<Float>(rows: 12, columns: 20, elements: (0..<240).map { $0 % 3 == 0 ? 1 : 0 })
    let metric = Metric.elements(mask)
    let shape = MPOShape.lowRank(rows: 12, columns: 20)
    let start = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: [4]) }
    let refined = w.withView { start.refined(toward: $0, metric: metric) }
    #expect(squaredError(refined, w, metric) < 0.5 * squaredError(start, w, metric))
  }

  @Test func `a second moment without full rank needs a ridge`() throws {
    let w = matrix(12, 20)
    var generator = SeededGenerator(seed: 8)
    let few = Matrix<Double>.random(rows: 20, columns: 5, using: &generator)
    let metric = Metric(columns: .full(few * few.transposed()))
    #expect(throws: LinearAlgebraError.self) { try PreparedMetric(metric, rowRidge: 0, columnRidge: -1e-3) }
    let prepared = try PreparedMetric(metric, rowRidge: 1e-3, columnRidge: 1e-4)
    let mpo = try lowRank(w, 6, prepared)
    #expect(mpo.cores.allSatisfy { $0.elements.allSatisfy(\.isFinite) })
    #expect(squaredError(mpo, w, metric) < 1e-3 * squaredError(try lowRank(w, 1, prepared), w, metric))
  }

  @Test(arguments: metrics)
  func `a prepared metric measures without its ridges`(name: String, metric: Metric) throws {
    let wide = matrix(12, 20)
    for (w, metric) in [(wide, metric), (wide.transposed(), metric.transposed)] {
      let prepared = try PreparedMetric(metric, rowRidge: 0.7, columnRidge: 1e-2)
      let mpo = try lowRank(w, 5, prepared)
      let (error, total) = (squaredError(mpo, w, metric), metric.squaredNorm(of: w))
      #expect(abs(prepared.squaredNorm(of: w) - total) <= 1e-12 * total)
      let relative = w.withView { prepared.relativeError(of: mpo, to: $0) }
      #expect(abs(relative * relative - error / total) <= 1e-12)
      // What was kept of the whitened matrix gives the same factorisation.
      let spectrum = try #require(w.withView { try prepared.spectrum(of: $0) })
      #expect(abs(spectrum.squaredNorm - total) <= 1e-12 * total)
      #expect(try w.withView { try prepared.lowRank(of: $0, rank: 5, spectrum: spectrum) } == mpo)
    }
  }

  @Test func `a single-precision matrix is whitened in single precision and factored as well`() throws {
    var generator = SeededGenerator(seed: 21)
    let w = Matrix<Float>.random(rows: 40, columns: 60, using: &generator)
    let metric = Metric(rows: .full(Self.spread(40, seed: 22)), columns: .full(Self.spread(60, seed: 23)))
    let prepared = try PreparedMetric(metric, rowRidge: 1, columnRidge: 1)
    let exact = w.converted(to: Double.self)
    let spectrum = try #require(w.withView { try prepared.spectrum(of: $0) })
    let expected = try #require(exact.withView { try prepared.spectrum(of: $0) })
    #expect(spectrum.precision == .single && expected.precision == .double)
    let (values, exactValues) = (try spectrum.singularValues(), try expected.singularValues())
    #expect(zip(values, exactValues).allSatisfy { abs($0 - $1) <= 1e-6 * exactValues[0] })
    for rank in [8, 24, 39] {
      let mpo = try #require(w.withView { try prepared.lowRank(of: $0, rank: rank, spectrum: spectrum) })
      let best = try #require(exact.withView { try prepared.lowRank(of: $0, rank: rank) })
      let error = w.withView { prepared.relativeError(of: mpo, to: $0) }
      let least = exact.withView { prepared.relativeError(of: best, to: $0) }
      #expect(abs(error - least) <= 1e-4 * least + 1e-6, "rank \(rank)")
      #expect(try w.withView { try prepared.lowRank(of: $0, rank: rank) } == mpo)
    }
  }

  @Test(arguments: [Float(1e-30), 1e30])
  func `what single precision cannot hold is whitened in double precision`(scale: Float) throws {
    var generator = SeededGenerator(seed: 24)
    let w = Matrix<Float>.random(rows: 12, columns: 20, using: &generator)
    let scaled = w.scaled(rowsBy: Array(repeating: scale, count: 12))
    let prepared = try PreparedMetric(Metric(columns: .full(Self.spread(20, seed: 25))), columnRidge: 0.1)
    #expect(try #require(scaled.withView { try prepared.spectrum(of: $0) }).precision == .double)
    let mpo = try #require(scaled.withView { try prepared.lowRank(of: $0, rank: 4) })
    let plain = try #require(w.withView { try prepared.lowRank(of: $0, rank: 4) })
    let error = scaled.withView { prepared.relativeError(of: mpo, to: $0) }
    #expect(abs(error - w.withView { prepared.relativeError(of: plain, to: $0) }) <= 1e-4)
  }

  @Test func `a side that is zero is whitened as the identity and measures nothing`() throws {
    let w = matrix(12, 20)
    let zero = Matrix<Double>(rows: 20, columns: 20, elements: Array(repeating: 0, count: 400))
    for side in [Metric.Side.full(zero), .diagonal(Array(repeating: 0, count: 20))] {
      let prepared = try PreparedMetric(Metric(columns: side), columnRidge: 1e-4)
      #expect(prepared.squaredNorm(of: w) <= 1e-12 * w.norm * w.norm)
      let mpo = try lowRank(w, 3, prepared)
      #expect(w.withView { prepared.relativeError(of: mpo, to: $0) } < 1)
      let plain = try lowRank(w, 3, PreparedMetric(.frobenius))
      #expect(difference(mpo.matrix(rows: 12, columns: 20), plain.matrix(rows: 12, columns: 20)) < 1e-12)
    }
  }

  @Test func `weights of elements are not whitened and measured as they are`() throws {
    let w = matrix(12, 20)
    let weights = Matrix<Float>(rows: 12, columns: 20, elements: (0..<240).map { Float($0 % 7) })
    let prepared = try PreparedMetric(.elements(weights))
    #expect(try w.withView { try prepared.spectrum(of: $0) == nil })
    let expected = zip(w.elements, weights.elements).reduce(0) { $0 + $1.0 * $1.0 * Double($1.1) }
    #expect(abs(prepared.squaredNorm(of: w) - expected) <= 1e-12 * expected)
  }

  private func lowRank(_ w: Matrix<Double>, _ rank: Int, _ metric: PreparedMetric) throws -> MPO<Double> {
    try #require(w.withView { try metric.lowRank(of: $0, rank: rank) })
  }
}

extension Metric {
  fileprivate var transposed: Metric {
    guard case .sides(let rows, let columns) = self else { return self }
    return Metric(rows: columns, columns: rows)
  }
}
