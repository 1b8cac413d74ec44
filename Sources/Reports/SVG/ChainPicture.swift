import Glibc
import TensorNetworks

/// A chain of cores as a tensor-network diagram: a circle a core, a line a bond with its size, legs for the factors of rows
/// and columns. The wider a line, the larger the bond.
struct ChainPicture {
  let shape: MPOShape
  let bonds: [Int]

  private static let (step, height) = (84.0, 132.0)

  var svg: String {
    let count = shape.siteCount
    let width = Self.step * Double(count)
    let middle = 66.0
    func center(_ site: Int) -> Double { Self.step * (Double(site) + 0.5) }
    var content = ""
    for (bond, size) in bonds.enumerated() {
      let line = SVG.element(
        "line",
        [
          "x1": SVG.number(center(bond)), "y1": SVG.number(middle),
          "x2": SVG.number(center(bond + 1)),
          "y2": SVG.number(middle), "class": "bond",
          "stroke-width": SVG.number(1 + log2(Double(max(1, size))) * 0.7),
        ])
      content += line
      content += SVG.text(
        "\(size)", (center(bond) + center(bond + 1)) / 2, middle - 8, anchor: .middle, kind: "size")
    }
    for site in 0..<count {
      let x = center(site)
      let isCentral = site == shape.centralIndex
      content += SVG.line(x, 24, x, 108, kind: "leg")
      content += SVG.text("\(shape.rowFactors[site])", x, 18, anchor: .middle)
      content += SVG.text("\(shape.columnFactors[site])", x, 122, anchor: .middle)
      content += SVG.circle(
        x, middle, isCentral ? 17 : 12, kind: isCentral ? "core central" : "core")
      content += SVG.text(
        "\(site + 1)", x, middle + 4, anchor: .middle, kind: isCentral ? "site central" : "site")
    }
    return SVG.picture(
      width: width, height: Self.height, kind: "chain", title: "\(count) cores",
      description:
        "row factors \(list(shape.rowFactors)), column factors \(list(shape.columnFactors)), bonds "
        + "\(list(bonds)) of at most \(list(shape.fullBonds)), core \(shape.centralIndex + 1) central",
      content)
  }
}
