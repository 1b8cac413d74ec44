import Glibc

/// Singular values at one bond, largest first, with the cut: what is kept is filled.
struct SpectrumPicture {
  let title: String
  let values: [Double]
  /// What is kept, for each column of the report that has this bond.
  let cuts: [(sign: String, kept: Int)]

  private static let (width, height) = (230.0, 150.0)

  var svg: String {
    let largest = values.first ?? 0
    let floor = max(largest * 1e-6, .leastNormalMagnitude)
    var chart = Chart(
      width: Self.width, height: Self.height, x: 1...Double(max(2, values.count)),
      y: floorOfShown(above: floor)...max(largest, floor * 10), xTitle: "", yTitle: title,
      isLogarithmic: (true, true))
    // Even steps on a logarithmic axis.
    var places: [Int] = []
    for step in 0..<48 {
      let place = Int(exp(log(Double(max(1, values.count))) * Double(step) / 47).rounded()) - 1
      if place < values.count, places.last != place { places.append(place) }
    }
    let points = places.map { (x: Double($0 + 1), y: max(values[$0], floor)) }
    if let kept = cuts.first?.kept {
      var inside = points.filter { $0.x <= Double(kept) }
      if kept > 0, kept <= values.count {
        inside.append((Double(kept), max(values[kept - 1], floor)))
      }
      chart.add(area: inside, kind: "kept")
    }
    chart.add(line: points, kind: "curve")
    for cut in cuts { chart.add(vertical: Double(cut.kept), kind: "cut") }
    if cuts.count > 1 { chart.add(points: cuts.map { (Double($0.kept), max(largest, floor * 10), $0.sign) }) }
    return chart.picture(kind: "spectrum", title: title, description: description)
  }

  /// The axis ends where the values do.
  private func floorOfShown(above floor: Double) -> Double {
    let last = values.last { $0 > floor } ?? floor
    return max(floor, pow(10, log10(last).rounded(.down)))
  }

  private var description: String {
    let kept = cuts.map { "\(cuts.count > 1 ? $0.sign + " keeps" : "kept are") \($0.kept)" }.joined(
      separator: ", ")
    return
      "\(values.count) singular values from \(small(values.first)) to \(small(values.last)), \(kept)"
  }
}
