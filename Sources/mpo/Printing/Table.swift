/// Columns of text, flush left or right as each says.
struct Table {
  enum Alignment { case left, right }

  struct Column {
    let title: String
    let alignment: Alignment
    /// Where the columns do not fit, those with the largest number are left out first; nil never.
    let dispensability: Int?

    init(_ title: String, _ alignment: Alignment, dispensability: Int? = nil) {
      self.title = title
      self.alignment = alignment
      self.dispensability = dispensability
    }
  }

  private let columns: [Column]
  private var rows: [(cells: [String], colours: [Int: Terminal.Colour])] = []

  init(_ columns: [(title: String, alignment: Alignment)]) {
    self.columns = columns.map { Column($0.title, $0.alignment) }
  }

  init(columns: [Column]) { self.columns = columns }

  /// - Parameter colours: of cells, by their columns.
  mutating func add(_ cells: [String], colours: [Int: Terminal.Colour] = [:]) {
    rows.append((cells, colours))
  }

  /// All columns, however wide they are.
  var text: String { text(of: Array(columns.indices), widths: widths, first: nil) }

  /// The columns that fit a terminal, names shortened where even those don't.
  /// - Parameter width: nil for no limit.
  func text(fitting width: Int?) -> String {
    guard let width else { return text }
    let widths = widths
    var shown = Array(columns.indices)
    func total() -> Int { shown.reduce(0) { $0 + widths[$1] } + 2 * max(0, shown.count - 1) }
    let dispensable = columns.indices.filter { columns[$0].dispensability != nil }
      .sorted { (columns[$0].dispensability ?? 0) > (columns[$1].dispensability ?? 0) }
    for column in dispensable where total() > width { shown.removeAll { $0 == column } }
    let excess = total() - width
    let first = excess > 0 ? max(12, widths[0] - excess) : nil
    let left = columns.indices.filter { !shown.contains($0) }.map { columns[$0].title }
    let note = left.isEmpty ? "" : "columns that do not fit: \(left.joined(separator: ", ")); --json has all\n"
    return text(of: shown, widths: widths, first: first) + Terminal.coloured(note, .faint)
  }

  private var widths: [Int] {
    columns.indices.map { column in
      max(columns[column].title.count, rows.map { $0.cells[column].count }.max() ?? 0)
    }
  }

  private func text(of shown: [Int], widths: [Int], first: Int?) -> String {
    func line(_ cells: [String], _ colours: [Int: Terminal.Colour], _ all: Terminal.Colour? = nil)
      -> String
    {
      let parts = shown.map { column in
        let width = column == 0 ? first ?? widths[0] : widths[column]
        let cell = cells[column].shortened(to: width)
        let space = String(repeating: " ", count: width - cell.count)
        let isLast = column == shown.last
        let coloured = Terminal.coloured(cell, colours[column] ?? all)
        return columns[column].alignment == .left
          ? coloured + (isLast ? "" : space) : space + coloured
      }
      return parts.joined(separator: "  ").trimmedRight + "\n"
    }
    return line(columns.map(\.title), [:], .bold) + rows.map { line($0.cells, $0.colours) }.joined()
  }
}

extension String {
  fileprivate var trimmedRight: String {
    var result = self
    while result.last == " " { result.removeLast() }
    return result
  }

  /// At most so many characters: what is longer loses its middle.
  func shortened(to width: Int) -> String {
    guard count > width, width > 1 else { return self }
    return prefix((width - 1) / 3) + "…" + suffix(width - 1 - (width - 1) / 3)
  }
}
