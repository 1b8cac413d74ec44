/// A plane with two axes, to draw lines and points on.
struct Chart {
  let width: Double
  let height: Double
  let x: Axis
  let y: Axis
  private var content: String

  private static let margins = (left: 44.0, right: 14.0, top: 18.0, bottom: 36.0)

  init(
    width: Double, height: Double, x: ClosedRange<Double>, y: ClosedRange<Double>, xTitle: String,
    yTitle: String,
    isLogarithmic: (x: Bool, y: Bool) = (false, false)
  ) {
    self.width = width
    self.height = height
    let margins = Self.margins
    let (right, bottom) = (width - margins.right, height - margins.bottom)
    self.x = Axis(x, from: margins.left, to: right, isLogarithmic: isLogarithmic.x)
    self.y = Axis(y, from: bottom, to: margins.top, isLogarithmic: isLogarithmic.y)
    content = ""
    for tick in self.y.ticks(4) {
      let place = self.y.place(tick)
      content += SVG.line(margins.left, place, right, place, kind: "grid")
      content += SVG.text(Axis.label(tick), margins.left - 5, place + 4, anchor: .end)
    }
    for tick in self.x.ticks(5) {
      let place = self.x.place(tick)
      content += SVG.line(place, bottom, place, bottom + 4, kind: "tick")
      content += SVG.text(Axis.label(tick), place, bottom + 16, anchor: .middle)
    }
    content += SVG.line(margins.left, bottom, right, bottom, kind: "axis")
    content += SVG.text(xTitle, right, height - 4, anchor: .end, kind: "name")
    content += SVG.text(yTitle, margins.left + 4, margins.top - 6, kind: "name")
  }

  mutating func add(line points: [(x: Double, y: Double)], kind: String) {
    content += SVG.path(points.map { (x.place($0.x), y.place($0.y)) }, kind: kind)
  }

  mutating func add(area points: [(x: Double, y: Double)], kind: String) {
    content += SVG.area(points.map { (x.place($0.x), y.place($0.y)) }, base: y.start, kind: kind)
  }

  /// Points with signs of their own, so that they are told apart without colours; those at one place share a mark.
  mutating func add(points: [(x: Double, y: Double, sign: String)]) {
    var marks: [(x: Double, y: Double, sign: String)] = []
    for point in points {
      let (left, top) = (x.place(point.x), y.place(point.y))
      if let same = marks.firstIndex(where: { abs($0.x - left) < 6 && abs($0.y - top) < 6 }) {
        marks[same].sign += point.sign
      } else {
        marks.append((left, top, point.sign))
      }
    }
    for mark in marks {
      content += SVG.circle(mark.x, mark.y, 7 + 3 * Double(max(0, mark.sign.count - 1)), kind: "mark")
      content += SVG.text(mark.sign, mark.x, mark.y + 3.7, anchor: .middle, kind: "sign")
    }
  }

  mutating func add(vertical value: Double, kind: String) {
    content += SVG.line(x.place(value), y.start, x.place(value), y.end, kind: kind)
  }

  /// Anything else, in coordinates of the picture.
  mutating func addContent(_ svg: String) { content += svg }

  func picture(kind: String, title: String, description: String) -> String {
    SVG.picture(
      width: width, height: height, kind: kind, title: title, description: description, content)
  }
}

extension Array {
  /// At most about `count` elements: the ends and what is between them, evenly.
  func thinned(to count: Int) -> [Element] {
    guard self.count > count, count > 1 else { return self }
    return (0..<count).map { self[$0 * (self.count - 1) / (count - 1)] }
  }
}
