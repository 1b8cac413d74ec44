import Conversion
import Reports

/// What each part of a conversion takes, as a table.
struct PartSchedule {
  private let parts: [PartCost]
  private let jobs: Int
  private let rate: Double

  /// - Parameter rate: operations in a second of one thread.
  init(_ parts: [PartCost], jobs: Int, rate: Double) { (self.parts, self.jobs, self.rate) = (parts, jobs, rate) }

  var text: String {
    var table = Table([
      ("part", .right), ("matrices", .right), ("profile", .right), ("convert", .right), ("memory", .right),
    ])
    for part in parts {
      table.add([
        "\(part.index)/\(parts.count)", grouped(part.conversion.matrices), duration(part.profile.seconds(rate: rate)),
        duration(part.conversion.seconds(rate: rate)), bytes(part.memory),
      ])
    }
    let stages = [parts.map(\.profile), parts.map(\.conversion)].map { stage in
      let seconds = stage.map { $0.seconds(rate: rate) }
      // All threads busy all the time.
      let ideal = stage.reduce(0) { $0 + $1.seconds(rate: rate, jobs: jobs) } / Double(parts.count)
      let longest = seconds.max() ?? 0
      return (longest: longest, share: longest > 0 ? ideal / longest : 1)
    }
    return table.text + """
        time        about \(duration(stages[0].longest)) for the profile and \(duration(stages[1].longest)) for the conversion, \
      \(jobs == 1 ? "1 job" : "\(jobs) jobs") a part, on processors like this one: \(percent(stages[0].share)) and \
      \(percent(stages[1].share)) of what perfectly equal parts would reach
        memory      about \(bytes(parts.map(\.memory).max() ?? 0)) a part
        ask for     --array=1-\(parts.count) --cpus-per-task=\(jobs) --mem=\(megabytes)M

      """
  }

  /// What to ask for: a quarter more, since the numbers are not exact.
  private var megabytes: Int { Int((Double(parts.map(\.memory).max() ?? 0) * 1.25 / 1e8).rounded(.up)) * 100 }

  private func percent(_ share: Double) -> String { "\(Int((100 * min(1, share)).rounded(.down))) %" }
}
