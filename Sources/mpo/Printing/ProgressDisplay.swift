import ArgumentParser
import Checkpoints
import Conversion
import Files
import Glibc
import Reports
import Synchronization

enum ProgressStyle: String, ExpressibleByArgument, CaseIterable {
  case auto, bar, json, none
}

/// Shows on stderr how far the work is.
final class ProgressDisplay: Sendable {
  private let style: ProgressStyle
  private let line = Mutex(Line())

  /// What is on the screen.
  private struct Line {
    var width = 0
    var stage: StageProgress.Stage?
    var start = ContinuousClock.now
  }

  init(_ style: ProgressStyle) {
    self.style = style == .auto ? (StandardError.isTerminal ? .bar : .none) : style
  }

  var handler: ProgressHandler { { self.show($0) } }

  private func show(_ progress: StageProgress) {
    switch style {
    case .json:
      StandardError.write(
        "{\"stage\":\"\(progress.stage.rawValue)\",\"completed\":\(progress.completed),"
          + "\"total\":\(progress.total),\"tensor\":\(printableJSON(jsonString(progress.tensor)))}\n")
    case .bar:
      line.withLock { line in
        if line.stage != progress.stage { (line.stage, line.start) = (progress.stage, .now) }
        let columns = Terminal.size(of: STDERR_FILENO)?.columns ?? 80
        let text = Self.text(
          of: progress, seconds: (ContinuousClock.now - line.start) / .seconds(1), columns: columns)
        StandardError.write(
          "\r" + text + String(repeating: " ", count: max(0, line.width - text.count)))
        line.width = text.count
      }
    case .auto, .none: break
    }
  }

  /// Stage, bar, time left and the matrix that was just finished, no wider than the terminal.
  static func text(of progress: StageProgress, seconds: Double, columns: Int) -> String {
    let fraction = Double(progress.completed) / Double(max(1, progress.total))
    let length = columns < 60 ? 10 : 24
    let filled = min(length, Int(fraction * Double(length)))
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: length - filled)
    var text = "\(progress.stage.rawValue) \(bar) \(Int(fraction * 100)) %"
    // The first matrices say little of the rest.
    if seconds > 1, fraction > 0.02, fraction < 1 {
      text += "  \(duration(seconds * (1 - fraction) / fraction)) left"
    }
    // A line that reaches the edge would begin a new one.
    let room = columns - 1 - text.count - 2
    return room >= 12
      ? text + "  " + escaped(progress.tensor).shortened(to: room)
      : String(text.prefix(max(1, columns - 1)))
  }

  /// Takes the bar off the screen.
  func clear() {
    line.withLock { line in
      if line.width > 0 {
        StandardError.write("\r" + String(repeating: " ", count: line.width) + "\r")
      }
      line.width = 0
    }
  }
}
