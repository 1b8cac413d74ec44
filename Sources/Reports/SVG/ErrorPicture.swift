import Squeezing

/// What a matrix would lose at every size, and what was chosen.
struct ErrorPicture {
  let elements: Int
  let curves: ErrorCurves?
  /// For each column of the report: what it stores, and its error.
  let chosen: [(sign: String, stored: Double, error: Double)]
  /// The error of truncated SVD at the same size, where no curve shows it.
  let plainSVD: [(stored: Double, error: Double)]

  var svg: String {
    let all = (curves.map { $0.chain + $0.lowRank + $0.hull } ?? []).map(\.relativeError)
    // Bounds of chains may be above 1, where nothing is left to lose.
    let most = (all.map { min($0, 1) } + chosen.map(\.error) + plainSVD.map(\.error)).max() ?? 1
    let widest = max(1, chosen.map { $0.stored / Double(max(1, elements)) }.max() ?? 1)
    var chart = Chart(
      width: 340, height: 220, x: 0...widest, y: 0...max(most, 1e-9),
      xTitle: "stored numbers / numbers of the matrix",
      yTitle: "relative error")
    if let curves {
      for (curve, kind) in [
        (curves.hull, "hull"), (curves.chain, "curve"), (curves.lowRank, "curve rank"),
      ] {
        chart.add(line: points(curve.filter { $0.relativeError <= max(1, most) }), kind: kind)
      }
    }
    for point in plainSVD {
      let (x, y) = (
        chart.x.place(point.stored / Double(max(1, elements))), chart.y.place(point.error)
      )
      chart.add(cross: (x, y))
    }
    chart.add(points: chosen.map { ($0.stored / Double(max(1, elements)), $0.error, $0.sign) })
    let described = chosen.map {
      "\($0.sign): \(small($0.error)) at \(fixed($0.stored / Double(max(1, elements)), 4))"
    }
    return chart.picture(
      kind: "errors", title: "Error against stored numbers",
      description: described.isEmpty ? "nothing is chosen yet" : described.joined(separator: ", "))
  }

  private func points(_ points: [ErrorCurves.Point]) -> [(x: Double, y: Double)] {
    points.thinned(to: 40).map {
      (Double($0.parameters) / Double(max(1, elements)), $0.relativeError)
    }
  }
}

extension Chart {
  /// A small cross at a place of the picture.
  fileprivate mutating func add(cross place: (x: Double, y: Double)) {
    let size = 4.0
    addContent(
      SVG.line(place.x - size, place.y - size, place.x + size, place.y + size, kind: "cross")
        + SVG.line(place.x - size, place.y + size, place.x + size, place.y - size, kind: "cross"))
  }
}
