import Checkpoints
import Conversion
import Files
import FoundationEssentials
import Reports
import SqueezeLoop

/// Shows the rounds of a squeeze on stderr, and what came of them.
struct SqueezeDisplay {
  private let style: ProgressStyle

  init(_ style: ProgressStyle) { self.style = style }

  func show(_ event: SqueezeLoop.Event) {
    switch event {
    case .warning(let text): StandardError.write("mpo: warning: \(text)\n")
    case .resumed(let rounds):
      guard style != .none, style != .json else { return }
      StandardError.write("resumed after round \(rounds.count - 1)\n")
      if let last = rounds.last { StandardError.write(Self.header + Self.line(last)) }
    case .round(let round):
      switch style {
      case .none: break
      case .json: StandardError.write(Self.json(round))
      case .auto, .bar:
        StandardError.write((round.round == 0 ? Self.header : "") + Self.line(round))
      }
    case .stopped(let round, let path):
      StandardError.write(
        "mpo: the model of round \(round.round) (\(grouped(round.parameters)) parameters, score \(round.score)) is kept in "
          + "\(escaped(path, limit: 4096)); the same command with --resume continues from there\n")
    }
  }

  private static let columns = [6, 14, 8, 10, 14, 10, 9]

  private static let header = row(["round", "parameters", "ratio", "predicted", "score", "", "seconds"])

  private static func row(_ cells: [String]) -> String {
    zip(cells, columns).map { cell, width in
      String(repeating: " ", count: max(1, width - cell.count)) + cell
    }.joined() + "\n"
  }

  private static func line(_ round: SqueezeJournal.Round) -> String {
    row([
      "\(round.round)", grouped(round.parameters), fixed(round.ratio, 4), small(round.predictedError),
      score(round.score), verdict(round), fixed(round.seconds, 1),
    ])
  }

  private static func score(_ value: Double) -> String {
    abs(value) < 1e6 && (abs(value) >= 1e-3 || value == 0) ? fixed(value, 6) : "\(value)"
  }

  private static func verdict(_ round: SqueezeJournal.Round) -> String {
    round.round == 0 ? "baseline" : round.accepted ? "accepted" : "rejected"
  }

  private static func json(_ round: SqueezeJournal.Round) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return ((try? encoder.encode(round)).map { String(decoding: $0, as: UTF8.self) } ?? "{}") + "\n"
  }

  /// The table of all rounds, and the output.
  static func text(of result: SqueezeLoop.Result, path: String) -> String {
    var table = Table([
      ("round", .right), ("parameters", .right), ("ratio", .right), ("predicted", .right), ("score", .right),
      ("", .left), ("seconds", .right),
    ])
    for round in result.rounds {
      table.add([
        "\(round.round)", grouped(round.parameters), fixed(round.ratio, 4), small(round.predictedError),
        score(round.score), verdict(round), fixed(round.seconds, 1),
      ])
    }
    let baseline = result.rounds[0]
    let accepted = result.accepted
    var text = """
      \(table.text)
      \(escaped(path, limit: 4096))
        model       of round \(accepted.round); \(result.reason)
        parameters  \(grouped(baseline.parameters)) -> \(grouped(accepted.parameters)) (ratio \(fixed(accepted.ratio, 4)))
        score       \(score(baseline.score)) -> \(score(accepted.score))

      """
    if accepted.round == 0 {
      text +=
        "  note        no round was accepted, so the output is the input; allow a larger drop, or try a "
        + "smaller --step or --finetune\n"
    }
    return text
  }
}
