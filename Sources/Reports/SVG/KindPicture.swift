/// Where the numbers went: for each kind of matrix a bar of what it had, filled with what is left.
struct KindPicture {
  struct Kind: Equatable {
    let name: String
    let before: Double
    /// For each column of the report.
    let after: [Double]
  }

  let kinds: [Kind]
  let signs: [String]

  private static let (width, bar, left, right) = (420.0, 12.0, 4.0, 64.0)

  /// - Parameter limit: kinds beyond it, the smallest, are put together.
  init(_ kinds: [Kind], signs: [String], limit: Int = 12) {
    let sorted = kinds.enumerated().sorted {
      ($1.element.before, $0.offset) < ($0.element.before, $1.offset)
    }
    .map(\.element)
    self.signs = signs
    guard sorted.count > limit else {
      self.kinds = sorted
      return
    }
    let rest = sorted.dropFirst(limit - 1)
    self.kinds =
      sorted.prefix(limit - 1) + [
        Kind(
          name: "\(rest.count) more", before: rest.reduce(0) { $0 + $1.before },
          after: signs.indices.map { column in rest.reduce(0) { $0 + $1.after[column] } })
      ]
  }

  var svg: String {
    let most = max(1, (kinds.map(\.before) + kinds.flatMap(\.after)).max() ?? 1)
    let scale = Axis(0...most, from: Self.left, to: Self.width - Self.right)
    var top = 2.0
    var content = ""
    for kind in kinds {
      content += SVG.text(
        kind.name.count > 60 ? "…" + kind.name.suffix(59) : kind.name, Self.left, top + 12)
      top += 17
      for (sign, after) in zip(signs, kind.after) {
        content += SVG.rectangle(
          Self.left, top, scale.place(kind.before) - Self.left, Self.bar, kind: "limit")
        content += SVG.rectangle(
          Self.left, top, scale.place(after) - Self.left, Self.bar, kind: "bar")
        let share = kind.before > 0 ? fixed(100 * after / kind.before, 0) : "0"
        content += SVG.text(
          (signs.count > 1 ? sign + " " : "") + share + " %",
          scale.place(max(kind.before, after)) + 5, top + 11)
        top += Self.bar + 3
      }
      top += 5
    }
    let described = kinds.map { kind in
      "\(kind.name): \(grouped(kind.before)) → "
        + kind.after.map { grouped($0) }.joined(separator: ", ")
    }
    return SVG.picture(
      width: Self.width, height: top + 2, kind: "kinds",
      title: "Numbers before and after, by kind of matrix",
      description: described.joined(separator: "; "), content)
  }
}
