import Glibc

/// Entanglement entropies at the bonds of a chain beside the largest that the bonds can carry, the logarithms of the full
/// bonds.
struct EntropyPicture {
  let entropies: [Double]
  let fullBonds: [Int]

  private static let (width, rowHeight) = (230.0, 26.0)

  var svg: String {
    let most = max(1e-9, fullBonds.map { log(Double($0)) }.max() ?? 0)
    let scale = Axis(0...most, from: 50, to: Self.width - 44)
    var content = ""
    for (bond, entropy) in entropies.enumerated() {
      let top = Double(bond) * Self.rowHeight + 4
      let limit = log(Double(fullBonds[bond]))
      content += SVG.text("bond \(bond + 1)", 44, top + 14, anchor: .end)
      content += SVG.rectangle(50, top, scale.place(limit) - 50, 18, kind: "limit")
      content += SVG.rectangle(50, top, scale.place(entropy) - 50, 18, kind: "bar")
      content += SVG.text(fixed(entropy, 2), scale.place(limit) + 4, top + 14)
    }
    let described = zip(entropies, fullBonds).enumerated().map { bond, pair in
      "bond \(bond + 1): \(fixed(pair.0, 2)) of at most \(fixed(log(Double(pair.1)), 2))"
    }
    return SVG.picture(
      width: Self.width, height: Double(entropies.count) * Self.rowHeight + 8, kind: "entropies",
      title: "Entanglement entropies in nats", description: described.joined(separator: ", "),
      content)
  }
}
