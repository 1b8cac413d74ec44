/// The matrices of a network as rows and columns: a row a layer, a column what the layers have in common.
///
/// Of `encoder.layer.3.attention.self.query.weight` the row is `encoder.layer.3` and the column `attention.self.query`.
struct NetworkMap {
  /// Layers whose matrices have the same names.
  struct Block: Equatable {
    /// The names of the rows with a star for the number of the layer; what has no number stands in a block of its own.
    let title: String
    let columns: [String]
    let rows: [Row]
  }

  struct Row: Equatable {
    let title: String
    /// For each column, the position of the matrix among the names; nil where the layer has none.
    let cells: [Int?]
  }

  let blocks: [Block]
  /// For each name, what it has in common with others: its column, or all of it where it has no layer.
  let kinds: [String]

  init(_ names: [String]) {
    let places = names.map(Place.init)
    var kinds: [String] = []
    var titles: [String] = []
    var members: [String: [Int]] = [:]
    for (index, place) in places.enumerated() {
      kinds.append(place.kind)
      let title = place.layer == nil ? "" : place.stem
      if members[title] == nil { titles.append(title) }
      members[title, default: []].append(index)
    }
    self.kinds = kinds
    blocks = titles.map { title in
      let own = members[title] ?? []
      return title.isEmpty ? Self.single(own, places) : Self.block(title, own, places)
    }
  }

  private static func block(_ title: String, _ members: [Int], _ places: [Place]) -> Block {
    var columns: [String] = []
    var columnPlaces: [String: Int] = [:]
    for index in members where columnPlaces[places[index].kind] == nil {
      columnPlaces[places[index].kind] = columns.count
      columns.append(places[index].kind)
    }
    let layers = Dictionary(grouping: members) { places[$0].layer ?? 0 }.sorted { $0.key < $1.key }
    return Block(
      title: title, columns: columns,
      rows: layers.map { _, indices in
        var cells = [Int?](repeating: nil, count: columns.count)
        for index in indices {
          if let column = columnPlaces[places[index].kind] { cells[column] = index }
        }
        return Row(title: places[indices[0]].row, cells: cells)
      })
  }

  /// What has no layer: a row a matrix.
  private static func single(_ members: [Int], _ places: [Place]) -> Block {
    Block(title: "", columns: [""], rows: members.map { Row(title: places[$0].kind, cells: [$0]) })
  }

  /// Where a name belongs.
  private struct Place {
    /// The number of the layer; nil for a name without one.
    let layer: Int?
    /// The name up to the layer, its number as a star.
    let stem: String
    /// The name up to the layer.
    let row: String
    /// The rest without `weight`.
    let kind: String

    init(_ name: String) {
      let separator: Character = name.contains("/") ? "/" : "."
      var parts = name.split(separator: separator).map(String.init)
      if parts.count > 1, parts.last == "0", parts[parts.count - 2] == "vars" {
        parts.removeLast(2)
      }
      if parts.count > 1, let last = parts.last, Self.plain.contains(last) { parts.removeLast() }
      let text = String(separator)
      // The last part is the name of a matrix, whatever number it has.
      guard
        let place = parts.indices.dropLast().first(where: { Self.number(in: parts[$0]) != nil }),
        let (prefix, number) = Self.number(in: parts[place])
      else {
        (layer, stem, row, kind) = (
          nil, "", "", parts.isEmpty ? name : parts.joined(separator: text)
        )
        return
      }
      layer = number
      stem = (parts[..<place] + [prefix + "*"]).joined(separator: text)
      row = parts[...place].joined(separator: text)
      // Keras has the name of the layer twice: `dense_1/dense_1/kernel`.
      let rest = parts[(place + 1)...].drop { $0 == parts[place] }
      kind = rest.joined(separator: text)
    }

    private static let plain: Set<String> = ["weight", "kernel", "kernel:0", "weights"]

    /// The number of a layer that a part of a name is, or ends with behind a line: `3`, `block_3`.
    private static func number(in part: String) -> (prefix: String, number: Int)? {
      let digits = part.reversed().prefix { $0.isASCII && $0.isNumber }.count
      guard digits > 0, digits < 10, let number = Int(part.suffix(digits)) else { return nil }
      let prefix = part.dropLast(digits)
      return prefix.isEmpty || prefix.hasSuffix("_") ? (String(prefix), number) : nil
    }
  }
}
