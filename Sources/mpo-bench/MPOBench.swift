import ArgumentParser
import LinearAlgebra

/// Entry points for the measurements of tools/bench that the command line has no use for.
@main
struct MPOBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mpo-bench", subcommands: [Decompose.self, Pack.self, Read.self, Shapes.self])

  static func main() {
    BLASKernels.relaunchWithBetter()
    main(nil)
  }
}
