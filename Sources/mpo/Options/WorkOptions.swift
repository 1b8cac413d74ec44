import ArgumentParser
import Conversion
import Files

/// Options of the subcommands that work through many tensors.
struct WorkOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The number of matrices to work on at the same time. The result does not depend on it.", valueName: "n"))
  var jobs = Self.processors

  @Option(
    help: ArgumentHelp(
      "auto (a bar when stderr is a terminal), bar, json (a line for each tensor) or none.", valueName: "how")
  )
  var progress = ProgressStyle.auto

  static let processors = ProcessorCount().available

  func validate() throws {
    guard (1...1024).contains(jobs) else { throw ValidationError("--jobs must be from 1 to 1024, not \(jobs).") }
  }

  /// How a conversion is carried out, shown on `display`.
  func options(_ display: ProgressDisplay, scratchFolder: String? = nil) -> ConversionOptions {
    ConversionOptions(
      jobs: jobs, generator: MPOTool.generator, scratchFolder: scratchFolder, progress: display.handler
    ) { warning in
      display.clear()
      warn(warning)
    }
  }
}
