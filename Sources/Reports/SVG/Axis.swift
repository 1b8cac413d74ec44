import Glibc

/// From values to places on a line, with round values to write beside it.
struct Axis {
  let range: ClosedRange<Double>
  let isLogarithmic: Bool
  /// Where the ends of the range are.
  let start: Double
  let end: Double

  /// - Parameter range: of finite values, above 0 for a logarithmic axis; of equal ends a little is made.
  init(
    _ range: ClosedRange<Double>, from start: Double, to end: Double, isLogarithmic: Bool = false
  ) {
    let lower = range.lowerBound
    let upper = range.upperBound > lower ? range.upperBound : isLogarithmic ? lower * 10 : lower + 1
    self.range = lower...upper
    self.isLogarithmic = isLogarithmic
    (self.start, self.end) = (start, end)
  }

  /// The place of a value; those outside are at the end that is nearer.
  func place(_ value: Double) -> Double {
    let value = min(max(value, range.lowerBound), range.upperBound)
    let fraction =
      isLogarithmic
      ? log(value / range.lowerBound) / log(range.upperBound / range.lowerBound)
      : (value - range.lowerBound) / (range.upperBound - range.lowerBound)
    return start + fraction * (end - start)
  }

  /// Round values in the range, about `count` of them.
  func ticks(_ count: Int = 4) -> [Double] {
    if isLogarithmic {
      let (low, high) = (
        Int(log10(range.lowerBound).rounded(.up)), Int(log10(range.upperBound).rounded(.down))
      )
      guard high - low > 0 else { return finerTicks(from: low - 1, to: high + 1) }
      let step = max(1, (high - low + count - 1) / max(1, count))
      return stride(from: low, through: high, by: step).map { pow(10, Double($0)) }
    }
    let rough = (range.upperBound - range.lowerBound) / Double(max(1, count))
    let power = pow(10, log10(rough).rounded(.down))
    let step = ([1, 2, 5, 10].first { $0 * power >= rough } ?? 10) * power
    let first = (range.lowerBound / step).rounded(.up)
    return (0...2 * count).map { (first + Double($0)) * step }.filter {
      $0 <= range.upperBound * (1 + 1e-12)
    }
  }

  /// Of less than two powers of ten: also 2 and 5 times of them.
  private func finerTicks(from low: Int, to high: Int) -> [Double] {
    (low...max(low, high)).flatMap { power in [1, 2, 5].map { $0 * pow(10, Double(power)) } }
      .filter(range.contains)
  }

  /// A tick as text: `0.25`, `1e-4`, `1M`.
  static func label(_ value: Double) -> String {
    let size = abs(value)
    if size == 0 { return "0" }
    for (unit, name) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] where size >= unit {
      return short(value / unit) + name
    }
    if size >= 1e-3 { return short(value) }
    return "1e\(Int(log10(size).rounded()))"
  }

  /// With as few decimals as it takes, three at most.
  private static func short(_ value: Double) -> String {
    for decimals in 0...2
    where abs(value - (value * pow(10, Double(decimals))).rounded() / pow(10, Double(decimals)))
      < 1e-9
    { return fixed(value, decimals) }
    return fixed(value, 3)
  }
}
