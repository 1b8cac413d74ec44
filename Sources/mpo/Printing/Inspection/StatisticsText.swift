import Checkpoints
import Conversion
import Files
import Reports

/// What `mpo inspect` prints of a statistics file: a line a matrix.
enum StatisticsText {
  /// - Throws: `ConversionError` for weights of elements that can't be.
  static func text(of statistics: CalibrationStatistics) throws -> String {
    let entries = statistics.entries
    let hasWeights = entries.contains { $0.kind == .elementWeights }
    var table = Table(
      [("matrix", .left), ("rows", .left), ("columns", .left)]
        + (hasWeights ? [("variance", .right), ("within rows", .right)] : []))
    let places = Dictionary(grouping: entries, by: \.matrix)
    var shown: Set<String> = []
    for entry in entries where shown.insert(entry.matrix).inserted {
      let ofMatrix = places[entry.matrix] ?? []
      if let weights = ofMatrix.first(where: { $0.kind == .elementWeights }) {
        let variance = try statistics.elementWeightVariance(of: entry.matrix)
        table.add(
          [escaped(entry.matrix), "element weights \(sizes(weights.shape))", ""]
            + [variance?.relative, variance?.withinRows].map { $0.map { fixed($0, 2) } ?? "–" })
      } else {
        let inputs = statistics.inputs(of: entry.matrix)
        table.add(
          [escaped(entry.matrix)]
            + CalibrationStatistics.Axis.allCases.map { axis in
              "\(axis == inputs ? "inputs" : "outputs"): \(side(axis, ofMatrix))"
            } + (hasWeights ? ["", ""] : []))
      }
    }
    var text = "\(escaped(statistics.path, limit: 4096)): statistics for --calibration"
    if let description = statistics.description { text += "\n\(escaped(description, limit: 4096))" }
    text += "\n\n\(table.text)\n"
    text += "matrices    \(shown.count)\n"
    if hasWeights {
      text +=
        "variance    of the element weights, over the square of their mean. Where it is large, plain SVD is far from the optimum; "
      text += "weights of whole rows can't express what varies within rows\n"
    }
    if let samples = statistics.samples { text += "samples     \(grouped(samples))\n" }
    if let tokens = statistics.tokens { text += "tokens      \(grouped(tokens))\n" }
    return text + "bytes       \(bytes(statistics.byteCount))\n"
  }

  private static func side(_ axis: CalibrationStatistics.Axis, _ entries: [CalibrationStatistics.Statistic]) -> String {
    if let gram = entries.first(where: { $0.kind == .gram(axis) }) { return "gram \(sizes(gram.shape))" }
    if let scale = entries.first(where: { $0.kind == .scale(axis) }) { return "scale \(sizes(scale.shape))" }
    return "identity"
  }
}
