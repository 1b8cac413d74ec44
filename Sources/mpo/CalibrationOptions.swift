import ArgumentParser
import Conversion

/// Options of the subcommands that measure errors in a metric.
struct CalibrationOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Measure errors by what the statistics in this file say of each layer's inputs and outputs.",
      valueName: "stats.safetensors"))
  var calibration: String?

  @Option(
    help: ArgumentHelp(
      "Added to the diagonal of the input statistics, relative to its mean. Default: 1e-4.", valueName: "r"))
  var inputRidge: Double?

  @Option(
    help: ArgumentHelp(
      "The same for the output statistics. Default: 1e-3 for two sites, 1 for more.", valueName: "r"))
  var outputRidge: Double?

  func validate() throws {
    for (name, ridge) in [("--input-ridge", inputRidge), ("--output-ridge", outputRidge)] {
      guard let ridge else { continue }
      guard calibration != nil else { throw ValidationError("\(name) goes with --calibration.") }
      guard ridge >= 0, ridge.isFinite else { throw ValidationError("\(name) must not be negative, not \(ridge).") }
    }
  }

  func statistics() throws -> CalibrationStatistics? {
    var statistics = try calibration.map(CalibrationStatistics.init(path:))
    statistics?.inputRidge = inputRidge
    statistics?.outputRidge = outputRidge
    return statistics
  }
}
