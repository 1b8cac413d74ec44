import Glibc

/// Values as a line of bars, on a logarithmic scale over six powers of ten.
enum SparkLine {
  private static let bars = Array("▁▂▃▄▅▆▇█")
  private static let width = 32

  /// - Parameter values: none negative, largest first.
  static func text(_ values: [Double]) -> String {
    guard let largest = values.first, largest > 0 else { return "" }
    let count = min(width, values.count)
    return String(
      (0..<count).map { place in
        let value = values[place * (values.count - 1) / max(1, count - 1)]
        let height = value > 0 ? 1 + log10(value / largest) / 6 : 0
        return bars[min(7, max(0, Int(height * 8)))]
      })
  }
}
