import Checkpoints
import Conversion
import Files

/// What `mpo inspect` prints of a statistics file: a line a matrix.
enum StatisticsText {
  static func text(of statistics: CalibrationStatistics) -> String {
    var table = Table([("matrix", .left), ("rows", .left), ("columns", .left)])
    let entries = statistics.entries
    let places = Dictionary(grouping: entries, by: \.matrix)
    var shown: Set<String> = []
    for entry in entries where shown.insert(entry.matrix).inserted {
      let ofMatrix = places[entry.matrix] ?? []
      if let weights = ofMatrix.first(where: { $0.kind == .elementWeights }) {
        table.add([escaped(entry.matrix), "element weights \(sizes(weights.shape))", ""])
      } else {
        let inputs = statistics.inputs(of: entry.matrix)
        table.add(
          [escaped(entry.matrix)]
            + CalibrationStatistics.Axis.allCases.map { axis in
              "\(axis == inputs ? "inputs" : "outputs"): \(side(axis, ofMatrix))"
            })
      }
    }
    var text = "\(escaped(statistics.path, limit: 4096)): statistics for --calibration"
    if let description = statistics.description { text += "\n\(escaped(description, limit: 4096))" }
    text += "\n\n\(table.text)\n"
    text += "matrices    \(shown.count)\n"
    if let samples = statistics.samples { text += "samples     \(grouped(samples))\n" }
    if let tokens = statistics.tokens { text += "tokens      \(grouped(tokens))\n" }
    return text + "bytes       \(bytes(statistics.byteCount))\n"
  }

  private static func side(_ axis: CalibrationStatistics.Axis, _ entries: [CalibrationStatistics.Entry]) -> String {
    if let gram = entries.first(where: { $0.kind == .gram(axis) }) { return "gram \(sizes(gram.shape))" }
    if let scale = entries.first(where: { $0.kind == .scale(axis) }) { return "scale \(sizes(scale.shape))" }
    return "identity"
  }
}
