import ArgumentParser
import Checkpoints
import Conversion
import MPOCheckpoints

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what is in a dense checkpoint, a model folder or an MPO checkpoint.",
    discussion: """
      Errors are relative Frobenius errors, measured at conversion; SVD is that of the truncated singular value \
      decomposition with at most as many parameters. Entropies are entanglement entropies in nats, one for each bond.
      """)

  @Argument(help: "A checkpoint: file or folder.")
  var path: String

  @Option(help: ArgumentHelp("Show this tensor alone, in full.", valueName: "name"))
  var tensor: String?

  @Flag(help: "With --tensor: print the singular values at every bond.")
  var spectrum = false

  @Flag(help: "Print a JSON object instead of text; its members are those of the format's specification.")
  var json = false

  func validate() throws {
    if spectrum, tensor == nil { throw ValidationError("--spectrum needs --tensor NAME.") }
  }

  func run() throws {
    if MPOCheckpoint.isPresent(at: path) {
      try MPOInspection(MPOCheckpoint(path: path)).print(tensor: tensor, spectrum: spectrum, json: json)
    } else {
      try DenseInspection(openDenseCheckpoint(at: path)).print(tensor: tensor, spectrum: spectrum, json: json)
    }
  }
}
