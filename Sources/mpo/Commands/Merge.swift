import ArgumentParser
import Checkpoints
import Conversion
import MPOCheckpoints

struct Merge: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Join the parts of a conversion.",
    discussion: """
      Each part is what 'mpo convert --plan PLAN.json --part K/N' wrote, on any machine. The result is the checkpoint \
      that one conversion with the same plan writes, byte for byte. With --hard-links no byte is copied: the result has the same \
      tensors, in the files of the parts, which get a second name.
      """)

  @Argument(help: "The MPO checkpoints of all parts, in any order.")
  var parts: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("The folder to write.", valueName: "out.mpo"))
  var output: String

  @Flag(
    help:
      "Make hard links to the files of the parts instead of copying them. They are copied where the file system has no hard links."
  )
  var hardLinks = false

  @OptionGroup var work: WorkOptions
  @OptionGroup var done: DoneOptions
  @OptionGroup var outputOptions: OutputOptions

  func run() throws {
    let checkpoints = try parts.map(MPOCheckpoint.init(path:))
    let merger = Merger(jobs: work.jobs, linksFiles: hardLinks)
    let isDone = try done.isDone(self.output, inputs: parts.map { $0 + "/" + CheckpointManifest.fileName }) {
      try merger.made(MPOCheckpoint(path: self.output), of: checkpoints)
    }
    if isDone { return }
    let output = try outputOptions.begin(self.output, kind: .folder, inputs: parts, replacing: done.skipDone)
    let display = ProgressDisplay(work.progress)
    let manifest = try merger.merge(checkpoints, to: output.temporaryPath, progress: display.handler)
    display.clear()
    try Card.write(manifest, to: output.temporaryPath)
    try output.commit()
    try StandardOutput.write(Summary(manifest).text(of: self.output))
  }
}
