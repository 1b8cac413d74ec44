/// Elements of SVG as text: every attribute and every text is escaped here, and nowhere else.
enum SVG {
  /// An element with what is in it.
  static func element(
    _ name: String, _ attributes: KeyValuePairs<String, String>, _ content: String = ""
  ) -> String {
    var result = "<\(name)"
    for (key, value) in attributes { result += " \(key)=\"\(escape(value))\"" }
    return result + (content.isEmpty ? "/>" : ">\(content)</\(name)>")
  }

  /// A whole picture: what it shows is its name for those who don't see it.
  /// - Parameters:
  ///   - title: a few words.
  ///   - description: the figures that the picture shows.
  static func picture(
    width: Double, height: Double, kind: String, title: String, description: String,
    _ content: String
  ) -> String {
    element(
      "svg",
      [
        "class": "picture \(kind)", "width": number(width * 1.2),
        "viewBox": "0 0 \(number(width)) \(number(height))", "role": "img",
        "aria-label": description.isEmpty ? title : "\(title): \(description)",
      ], content)
  }

  enum Anchor: String { case start, middle, end }

  static func text(
    _ text: String, _ x: Double, _ y: Double, anchor: Anchor = .start, kind: String = ""
  ) -> String {
    element(
      "text",
      kind.isEmpty
        ? ["x": number(x), "y": number(y), "text-anchor": anchor.rawValue]
        : ["x": number(x), "y": number(y), "text-anchor": anchor.rawValue, "class": kind],
      escape(text))
  }

  static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, kind: String) -> String {
    element(
      "line",
      ["x1": number(x1), "y1": number(y1), "x2": number(x2), "y2": number(y2), "class": kind])
  }

  static func rectangle(_ x: Double, _ y: Double, _ width: Double, _ height: Double, kind: String)
    -> String
  {
    element(
      "rect",
      [
        "x": number(x), "y": number(y), "width": number(max(0, width)),
        "height": number(max(0, height)),
        "class": kind,
      ])
  }

  static func circle(_ x: Double, _ y: Double, _ radius: Double, kind: String) -> String {
    element("circle", ["cx": number(x), "cy": number(y), "r": number(radius), "class": kind])
  }

  /// A line through points.
  static func path(_ points: [(x: Double, y: Double)], kind: String) -> String {
    guard let first = points.first else { return "" }
    var data = "M\(number(first.x)) \(number(first.y))"
    for point in points.dropFirst() { data += "L\(number(point.x)) \(number(point.y))" }
    return element("path", ["d": data, "class": kind])
  }

  /// The area between a line and the height `base`.
  static func area(_ points: [(x: Double, y: Double)], base: Double, kind: String) -> String {
    guard let first = points.first, let last = points.last else { return "" }
    return path([(first.x, base)] + points + [(last.x, base)], kind: kind)
  }

  /// A coordinate with at most one decimal; what is no finite number is 0.
  static func number(_ value: Double) -> String {
    guard value.isFinite, abs(value) < 1e9 else { return "0" }
    let tenths = Int((value * 10).rounded())
    let (whole, rest) = (tenths.magnitude / 10, tenths.magnitude % 10)
    return (tenths < 0 ? "-" : "") + (rest == 0 ? "\(whole)" : "\(whole).\(rest)")
  }

  /// Text as it may stand in an element or a quoted attribute. What does something to a page or to the order of its text,
  /// rather than to stand for itself, becomes an escape that can be read.
  static func escape(_ text: String) -> String {
    var result = ""
    result.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "'": result += "&#39;"
      case "\n", "\t": result.unicodeScalars.append(scalar)
      case "\0"..."\u{1F}", "\u{7F}"..."\u{9F}", "\u{200E}"..."\u{200F}", "\u{202A}"..."\u{202E}",
        "\u{2066}"..."\u{2069}":
        result += "\\u{\(String(scalar.value, radix: 16))}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
