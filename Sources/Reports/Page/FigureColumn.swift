/// A column of the table of all figures.
struct FigureColumn: Sendable {
  let title: String
  let isNumber: Bool
  /// nil for a matrix that has nothing of it.
  let value: @Sendable (MatrixFigures) -> String?

  /// In the order of the table.
  static let all = [
    FigureColumn(title: "shape", isNumber: false) { $0.sizeText },
    FigureColumn(title: "stored as", isNumber: false, value: storage),
    FigureColumn(title: "bonds", isNumber: false) { $0.chains.count == 1 ? list($0.chains[0].bonds) : nil },
    FigureColumn(title: "ratio", isNumber: true) { $0.state == .cores ? fixed($0.ratio, 4) : nil },
    FigureColumn(title: "in metric", isNumber: true) { $0.metricError.map { small($0) } },
    FigureColumn(title: "error", isNumber: true) { $0.relativeError.map { small($0) } },
    FigureColumn(title: "SVD", isNumber: true) { $0.svdError.map { small($0) } },
    FigureColumn(title: "entropies", isNumber: false) {
      $0.entropies?.map { fixed($0, 2) }.joined(separator: " ")
    },
  ]

  @Sendable private static func storage(of matrix: MatrixFigures) -> String? {
    switch matrix.state {
    case .dense: return "dense"
    case .tied(let other): return "the same as \(other)"
    case .cores:
      guard matrix.chains.count == 1 else { return "\(matrix.chains.count) operators" }
      let chain = matrix.chains[0]
      let bases = chain.hasBases ? ", in bases" : ""
      return "\(chain.shape)\(bases)" + (chain.range.map { ", \($0) of \(chain.name)" } ?? "")
    }
  }
}
