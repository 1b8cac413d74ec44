import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Reports

struct Restore: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Turn an MPO checkpoint back into a dense one that any framework loads.",
    discussion: """
      The ending of OUT decides what is written. .safetensors: one file. .h5 or .hdf5: one HDF5 file, with the structure \
      of the source if that was HDF5. .keras: a Keras archive, if the source was one. Anything else: a model folder with \
      the files of the source: weights of the same names and kinds, and all other files that were copied. A source that was one \
      file becomes a folder with model.safetensors (several shards when it is large).
      """)

  @Argument(help: "The MPO checkpoint.")
  var checkpoint: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The file or folder to write.", valueName: "out"))
  var output: String

  @OptionGroup var work: WorkOptions
  @OptionGroup var outputOptions: OutputOptions

  func run() throws {
    HeavyWork.prepare()
    let source = try MPOCheckpoint(path: checkpoint)
    let format = Restorer.FileFormat(path: output)
    let output = try outputOptions.begin(output, kind: format == nil ? .folder : .file, inputs: [checkpoint])
    let display = ProgressDisplay(work.progress)
    let restorer = Restorer(jobs: work.jobs)
    if let format {
      try restorer.restoreFile(source, to: output.temporaryPath, as: format, progress: display.handler)
    } else {
      try restorer.restoreFolder(source, to: output.temporaryPath, progress: display.handler)
    }
    display.clear()
    try output.commit()
    let totals = source.manifest.totals
    try StandardOutput.write(
      "\(escaped(self.output, limit: 4096)): \(source.contents.tensors.count) tensors, "
        + "\(grouped(totals.parametersBefore)) parameters, \(bytes(totals.bytesBefore))\n")
  }
}
