import Squeezing

/// The error of the whole network against its ratio, and the budgets that were chosen.
struct BudgetPicture {
  let parameters: Int
  let curve: NetworkCurve
  let chosen: [(sign: String, stored: Int, error: Double)]

  var svg: String {
    // Bounds of chains may be above 1, where nothing is left to lose.
    let shown = curve.points.filter { $0.error <= 1 }
    let most = max(1e-9, (shown.map(\.error) + chosen.map(\.error)).max() ?? 1)
    let whole = Double(max(1, parameters))
    var chart = Chart(
      width: 420, height: 240, x: 0...max(1, chosen.map { Double($0.stored) / whole }.max() ?? 1),
      y: 0...most,
      xTitle: "ratio of parameters, after / before",
      yTitle: curve.measure == .metric ? "error in the metric" : "relative error")
    chart.add(line: shown.map { (Double($0.parameters) / whole, $0.error) }, kind: "hull")
    for point in chosen {
      chart.add(vertical: Double(point.stored) / whole, kind: "cut")
    }
    chart.add(points: chosen.map { (Double($0.stored) / whole, $0.error, $0.sign) })
    let described = chosen.map {
      "\($0.sign): \(small($0.error)) at ratio \(fixed(Double($0.stored) / whole, 4))"
    }
    return chart.picture(
      kind: "budget", title: "Error of the whole network against its ratio",
      description: described.isEmpty ? "nothing is chosen yet" : described.joined(separator: ", "))
  }
}
