import Checkpoints
import Files

/// What an evaluation said.
enum Score: Equatable {
  case number(Double)
  case none(reason: String)

  /// The number that is the last line with anything in it.
  static func last(in output: String) -> Score {
    let lines = output.split(whereSeparator: \.isNewline).map { $0.trimmingSpaces }
    guard let line = lines.last(where: { !$0.isEmpty }) else {
      return .none(reason: "printed nothing; its last line must be a number")
    }
    guard let number = Double(line) else {
      return .none(reason: "printed '\(escaped(String(line), limit: 60))' as its last line, which is not a number")
    }
    guard number.isFinite else { return .none(reason: "printed \(line), which is not a finite number") }
    return .number(number)
  }
}

extension Substring {
  fileprivate var trimmingSpaces: Substring {
    var result = self
    while let first = result.first, first.isWhitespace { result.removeFirst() }
    while let last = result.last, last.isWhitespace { result.removeLast() }
    return result
  }
}
