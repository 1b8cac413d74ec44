import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Reports

struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check an MPO checkpoint: structure, checksums, and the true error of every tensor.",
    discussion: "Prints a line for each problem, and exits with status 3 when a check fails.")

  @Argument(help: "The MPO checkpoint.")
  var checkpoint: String

  @Option(
    help: ArgumentHelp(
      "The dense checkpoint from which it was made: the errors are measured again.", valueName: "model"))
  var against: String?

  @Flag(help: "Print a JSON object instead of text.")
  var json = false

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var work: WorkOptions

  func run() throws {
    HeavyWork.prepare()
    let original = try against.map(sourceOptions.open)
    let display = ProgressDisplay(work.progress)
    let report: Verifier.Findings
    switch try Verifier.open(checkpoint) {
    case .valid(let source):
      report = try Verifier(jobs: work.jobs).verify(source, against: original, progress: display.handler)
    case .invalid(let reason):
      report = Verifier.Findings(problems: Verifier.problems(at: checkpoint, openingFailedFor: reason))
    }
    display.clear()
    if json {
      try StandardOutput.write(printableJSON(json(of: report)))
    } else {
      try StandardOutput.write(text(of: report))
    }
    if !report.problems.isEmpty {
      throw Failure.checkFailed(
        "\(escaped(checkpoint, limit: 4096)): \(report.problems.count == 1 ? "1 check" : "\(report.problems.count) checks") failed"
      )
    }
  }

  private func text(of report: Verifier.Findings) -> String {
    guard report.problems.isEmpty else { return report.problems.map { $0 + "\n" }.joined() }
    var text =
      "\(escaped(checkpoint, limit: 4096)) verified: \(report.fileCount) files, \(report.tensorCount) tensors\n"
    if let worst = report.relativeErrors.max(by: { $0.error < $1.error }) {
      text +=
        "largest relative error \(small(worst.error)), of '\(escaped(worst.tensor))'; all errors match the manifest\n"
    }
    return text
  }

  /// What `--json` prints. Encoders take names for one that are canonically equivalent, so the members are put together
  /// here.
  private func json(of report: Verifier.Findings) -> String {
    func list(_ items: [String], _ brackets: (String, String)) -> String {
      items.isEmpty
        ? brackets.0 + brackets.1
        : "\(brackets.0)\n" + items.map { "    \($0)" }.joined(separator: ",\n") + "\n  \(brackets.1)"
    }
    let errors = report.relativeErrors.map { (name: TensorName($0.tensor), error: $0.error) }.sorted {
      $0.name < $1.name
    }
    return """
      {
        "holds" : \(report.problems.isEmpty),
        "path" : \(jsonString(checkpoint)),
        "problems" : \(list(report.problems.map { jsonString($0) }, ("[", "]"))),
        "relative_errors" : \(list(errors.map { "\(jsonString($0.name.text)) : \($0.error.isFinite ? "\($0.error)" : "null")" }, ("{", "}")))
      }

      """
  }
}
