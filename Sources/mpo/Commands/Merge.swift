import ArgumentParser
import Checkpoints
import Conversion
import MPOCheckpoints

struct Merge: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Join the parts of a conversion.",
    discussion: """
      Each part is what 'mpo convert --plan PLAN.json --part K/N' wrote, on whatever machine. The result is the checkpoint \
      that one conversion with the same plan writes, byte for byte.
      """)

  @Argument(help: "The MPO checkpoints of all parts, in any order.")
  var parts: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("The folder to write.", valueName: "out.mpo"))
  var output: String

  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  func run() throws {
    let checkpoints = try parts.map(MPOCheckpoint.init(path:))
    let output = try outputOptions.begin(output, kind: .folder, inputs: parts)
    let display = ProgressDisplay(work.progress)
    let manifest = try Merger(jobs: work.jobs).merge(checkpoints, to: output.temporaryPath, progress: display.handler)
    display.clear()
    try Card.write(manifest, to: output.temporaryPath)
    try output.commit()
    try StandardOutput.write(Summary(manifest).text(of: self.output))
  }
}
