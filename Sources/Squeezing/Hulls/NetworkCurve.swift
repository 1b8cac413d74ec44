/// The error of a whole network against its size, every matrix planned for itself: what a ratio costs.
public struct NetworkCurve: Sendable, Hashable {
  /// The error of the network at a size.
  public struct Point: Sendable, Hashable {
    /// Of the whole checkpoint.
    public let parameters: Int
    /// The error of all matrices together, as `measure` says.
    public let error: Double
  }

  /// What the error is.
  public enum Measure: Sendable, Hashable {
    /// `√(Σ‖W−Ŵ‖² / Σ‖W‖²)` over all profiled matrices.
    case frobenius
    /// The root mean square of the relative errors in the metric, over the profiled matrices that have one.
    case metric
  }

  /// What the error of the network is.
  public let measure: Measure
  /// Dense first, parameters falling: the vertices that the plans of growing budgets go through.
  public let points: [Point]

  /// - Throws: `SqueezeError` for a profile that contradicts itself, or lacks what the structure needs.
  /// - Complexity: that of planning the network once.
  public init(_ network: NetworkProfile, _ settings: CurveSettings = CurveSettings()) throws {
    for layer in network.layers where !layer.isConsistent { throw SqueezeError.inconsistentProfile(layer: layer.name) }
    guard network.hasConsistentTotals else { throw SqueezeError.inconsistentTotals }
    var scaled = network
    scaled.layers = network.layers.map(\.scaled)
    let shares = NetworkErrors(of: network)
    measure = shares.measure
    struct Step {
      let cost: Double
      let saved: Int
      let error: Double
    }
    var steps: [Step] = []
    for (index, weight) in scaled.errorWeights.enumerated() {
      let layer = scaled.layers[index]
      let norm = FormErrors(of: layer, rounding: settings.rounding).norm
      let curve = try layer.curve(settings.structure, settings, weight: weight)
      let unit = weight * norm * norm
      for (from, to) in zip(curve.hull, curve.hull.dropFirst()) {
        let (a, b) = (curve.points[from], curve.points[to])
        let growth = b.squaredError - a.squaredError
        steps.append(
          Step(
            cost: growth / Double(a.size - b.size), saved: a.size - b.size,
            error: unit > 0 ? growth / unit * shares.shares[index] : 0))
      }
    }
    // Along a hull the cost of a step rises, so the steps of each matrix stay in their order.
    let ordered = steps.enumerated().sorted { ($0.element.cost, $0.offset) < ($1.element.cost, $1.offset) }
    var parameters = network.parameters - network.tiedParameters
    var squared = 0.0
    var points = [Point(parameters: parameters, error: 0)]
    // Where nothing is a chain no bases are needed.
    if settings.structure == .chain { parameters += network.basisParameters ?? 0 }
    for (index, (_, step)) in ordered.enumerated() {
      parameters -= step.saved
      squared += step.error
      // No picture shows more.
      if index + 1 == ordered.count || index % max(1, ordered.count / 120) == 0 {
        points.append(Point(parameters: parameters, error: max(0, squared).squareRoot()))
      }
    }
    self.points = points
  }
}
