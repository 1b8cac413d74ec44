/// Columns of text: the first flush left, the others flush right unless they say otherwise.
struct Table {
  enum Alignment { case left, right }
  private let alignments: [Alignment]
  private var rows: [[String]]

  init(_ columns: [(title: String, alignment: Alignment)]) {
    alignments = columns.map(\.alignment)
    rows = [columns.map(\.title)]
  }

  mutating func add(_ cells: [String]) { rows.append(cells) }

  var text: String {
    let widths = alignments.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      let line = row.enumerated().map { column, cell in
        let space = String(repeating: " ", count: widths[column] - cell.count)
        return alignments[column] == .left ? cell + space : space + cell
      }.joined(separator: "  ")
      return line.trimmedRight + "\n"
    }.joined()
  }
}

extension String {
  fileprivate var trimmedRight: String {
    var result = self
    while result.last == " " { result.removeLast() }
    return result
  }
}
