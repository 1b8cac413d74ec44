import ArgumentParser
import Conversion
import Recipes

/// Options of the subcommands that measure errors in a metric.
struct CalibrationOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Measure errors in the metric of these statistics of each layer's inputs and outputs.",
      valueName: "stats.safetensors"))
  var calibration: String?

  @Option(
    help: ArgumentHelp(
      "What is added to the diagonal of the input statistics, as a multiple of its mean. Default: 1e-4.", valueName: "r"
    ))
  var inputRidge: Double?

  @Option(
    help: ArgumentHelp(
      "The same for the output statistics. Default: the value in the statistics file; without one 1e-3 for two sites, 0.3 for more, 0.15 in bases.",
      valueName: "r"))
  var outputRidge: Double?

  func validate() throws {
    for (name, ridge) in [("--input-ridge", inputRidge), ("--output-ridge", outputRidge)] {
      guard let ridge else { continue }
      guard calibration != nil else { throw ValidationError("\(name) goes with --calibration.") }
      guard ridge >= 0, ridge.isFinite else { throw ValidationError("\(name) must not be negative, not \(ridge).") }
    }
  }

  /// The members of a recipe that the ridges are; the statistics themselves are needed whatever the recipe says.
  var givenRidges: [String] {
    [inputRidge.map { _ in "metric.input_ridge" }, outputRidge.map { _ in "metric.output_ridge" }].compactMap(\.self)
  }

  func statistics() throws -> CalibrationStatistics? { try calibration.map(CalibrationStatistics.init(path:)) }

  func identity(of statistics: CalibrationStatistics?) throws -> StatisticsIdentity? {
    try statistics?.identity(inputRidge: inputRidge, outputRidge: outputRidge)
  }
}
