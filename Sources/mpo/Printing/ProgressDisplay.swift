import ArgumentParser
import Checkpoints
import Conversion
import Files
import Glibc
import Synchronization

enum ProgressStyle: String, ExpressibleByArgument, CaseIterable {
  case auto, bar, json, none
}

/// Shows on stderr how far the work is.
final class ProgressDisplay: Sendable {
  private let style: ProgressStyle
  private let lastWidth = Mutex(0)

  init(_ style: ProgressStyle) {
    self.style = style == .auto ? (StandardError.isTerminal ? .bar : .none) : style
  }

  var handler: ProgressHandler { { self.show($0) } }

  private func show(_ progress: Progress) {
    switch style {
    case .json:
      StandardError.write(
        "{\"stage\":\"\(progress.stage.rawValue)\",\"completed\":\(progress.completed),"
          + "\"total\":\(progress.total),\"tensor\":\(printableJSON(jsonString(progress.tensor)))}\n")
    case .bar:
      let fraction = Double(progress.completed) / Double(max(1, progress.total))
      let filled = Int(fraction * 30)
      let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
      let line = "\(progress.stage.rawValue) \(bar) \(Int(fraction * 100)) %"
      lastWidth.withLock { width in
        StandardError.write("\r" + line + String(repeating: " ", count: max(0, width - line.count)))
        width = line.count
      }
    case .auto, .none: break
    }
  }

  /// Takes the bar off the screen.
  func clear() {
    lastWidth.withLock { width in
      if width > 0 { StandardError.write("\r" + String(repeating: " ", count: width) + "\r") }
      width = 0
    }
  }
}
