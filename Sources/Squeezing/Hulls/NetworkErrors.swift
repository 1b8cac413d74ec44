/// How the relative errors of the matrices of a network add up to one.
public struct NetworkErrors: Sendable {
  /// What the error of the network is.
  public let measure: NetworkCurve.Measure
  /// For each layer, what its squared relative error counts; their sum is 1 unless all are 0.
  public let shares: [Double]

  /// In the metric where a layer has one, else in the Frobenius norm.
  public init(of network: NetworkProfile) {
    let measured = network.layers.count { $0.metricSingularValues != nil }
    measure = measured > 0 ? .metric : .frobenius
    if measured > 0 {
      shares = network.layers.map { $0.metricSingularValues == nil ? 0 : 1 / Double(measured) }
    } else {
      // Squares are to neither vanish nor overflow.
      let largest = network.layers.map(\.norm).max() ?? 0
      let squares = network.layers.map { largest > 0 ? ($0.norm / largest) * ($0.norm / largest) : 0 }
      let total = squares.reduce(0, +)
      shares = squares.map { total > 0 ? $0 / total : 0 }
    }
  }

  /// The error of the network; nil where that of a matrix that counts is not known.
  /// - Parameter errors: the relative error of each layer, 0 where it stays dense.
  public func total(_ errors: [Double?]) -> Double? {
    var sum = 0.0
    for (share, error) in zip(shares, errors) where share > 0 {
      guard let error else { return nil }
      sum += share * error * error
    }
    return sum.squareRoot()
  }
}
