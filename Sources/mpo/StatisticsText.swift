import Checkpoints
import Conversion
import Files

/// What `mpo inspect` prints of a statistics file: a line a matrix.
enum StatisticsText {
  static func text(of statistics: CalibrationStatistics) -> String {
    var table = Table([("matrix", .left), ("outputs (rows)", .left), ("inputs (columns)", .left)])
    let entries = statistics.entries
    var places: [String: [CalibrationStatistics.Entry]] = [:]
    for entry in entries { places[entry.matrix, default: []].append(entry) }
    var shown: Set<String> = []
    for entry in entries where shown.insert(entry.matrix).inserted {
      let ofMatrix = places[entry.matrix] ?? []
      if let weights = ofMatrix.first(where: { $0.kind == "element_weights" }) {
        table.add([escaped(entry.matrix), "element weights \(sizes(weights.shape))", ""])
      } else {
        table.add([escaped(entry.matrix), side("output", ofMatrix), side("input", ofMatrix)])
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

  private static func side(_ side: String, _ entries: [CalibrationStatistics.Entry]) -> String {
    if let gram = entries.first(where: { $0.kind == side + "_gram" }) { return "gram \(sizes(gram.shape))" }
    if let scale = entries.first(where: { $0.kind == side + "_scale" }) { return "scale \(sizes(scale.shape))" }
    return "identity"
  }
}
