import Squeezing
import TensorNetworks
import Testing

@Suite struct ErrorCurvesTests {
  private func network(hasMetric: Bool) throws -> NetworkProfile {
    let shape = try MPOShape(rowFactors: [4, 4, 4], columnFactors: [4, 4, 4])
    let layers = (0..<5).map { index in
      let values = (0..<64).map { 1 / (1 + Double($0) / Double(1 + index)) }
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      let spectra = SingularSpectra(
        [16, 16].map { count in (0..<count).map { 1 / Double(1 + $0 * (index + 1)) } })
      return LayerProfile(
        name: "layer\(index)", split: MatrixSplit(rows: 64, columns: 64, shape: shape), norm: norm,
        spectra: hasMetric ? nil : spectra.divided(by: spectra.norm / norm),
        singularValues: hasMetric ? nil : values,
        metricSingularValues: hasMetric ? values.map { $0 * Double(index + 1) } : nil)
    }
    return NetworkProfile(parameters: 5 * 4096 + 50, tiedParameters: 0, layers: layers)
  }

  @Test func `the hull is convex and no point of a structure is below it`() throws {
    for layer in try network(hasMetric: false).layers {
      let curves = try #require(layer.errorCurves())
      #expect(curves.hull[0].parameters == 4096 && curves.hull[0].relativeError == 0)
      #expect(!curves.chain.isEmpty && !curves.lowRank.isEmpty)
      func squared(_ parameters: Int) -> Double {
        let place = curves.hull.lastIndex { $0.parameters >= parameters } ?? 0
        let (a, b) = (curves.hull[place], curves.hull[min(place + 1, curves.hull.count - 1)])
        guard a.parameters > b.parameters else { return a.relativeError * a.relativeError }
        let fraction = Double(a.parameters - parameters) / Double(a.parameters - b.parameters)
        return a.relativeError * a.relativeError * (1 - fraction) + b.relativeError
          * b.relativeError * fraction
      }
      let slopes = zip(curves.hull, curves.hull.dropFirst()).map { a, b in
        (b.relativeError * b.relativeError - a.relativeError * a.relativeError)
          / Double(a.parameters - b.parameters)
      }
      #expect(zip(slopes, slopes.dropFirst()).allSatisfy { $0 <= $1 + 1e-15 })
      for point in (curves.chain + curves.lowRank)
      where point.parameters >= curves.hull[curves.hull.count - 1].parameters {
        #expect(point.relativeError * point.relativeError >= squared(point.parameters) - 1e-12)
      }
    }
  }

  @Test(arguments: [false, true]) func `the network's curve goes through its plans`(hasMetric: Bool)
    throws
  {
    let network = try network(hasMetric: hasMetric)
    let curve = try NetworkCurve(network)
    #expect(curve.measure == (hasMetric ? .metric : .frobenius))
    #expect(curve.points[0].parameters == network.parameters && curve.points[0].error == 0)
    let errors = NetworkErrors(of: network)
    for point in curve.points.dropFirst()
    where point.parameters > curve.points[curve.points.count - 1].parameters {
      let plan = try SqueezePlan(
        network, budget: .ratio(Double(point.parameters) / Double(network.parameters)),
        structure: .auto)
      #expect(plan.parametersAfter == point.parameters)
      let planned = try #require(
        errors.total(plan.layers.map { $0.bonds == nil ? 0 : $0.relativeErrorBound }))
      #expect(abs(planned - point.error) < 1e-9)
    }
    #expect(errors.total([nil, 0, 0, 0, 0]) == nil)
  }

  @Test func `a profile without spectra has no curves`() {
    #expect(
      LayerProfile(name: "a", split: .lowRank(rows: 64, columns: 64), norm: 1).errorCurves() == nil)
  }
}
