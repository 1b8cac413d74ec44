import ArgumentParser
import Conversion
import Files

/// Which lines of a table `inspect` shows, and in which order.
struct LineOptions: ParsableArguments {
  enum Key: String, ExpressibleByArgument, CaseIterable {
    case name, size, numbers, ratio, error, svd
  }

  @Argument(
    help: ArgumentHelp("Show only the tensors that match one of these globs.", valueName: "globs")
  )
  var globs: [String] = []

  @Option(
    help: ArgumentHelp(
      "Order the lines by name, size (numbers before), numbers (stored), ratio, error (in the metric where there is one) or "
        + "svd, the largest value first. Default: the order of the checkpoint.",
      valueName: "key"))
  var sort: Key?

  @Option(help: ArgumentHelp("Show only the first N lines.", valueName: "n"))
  var top: Int?

  func validate() throws {
    if let top, top < 1 { throw ValidationError("--top must be at least 1, not \(top).") }
  }

  /// What was given, as options; empty for all lines as they are.
  var given: [String] {
    (globs.isEmpty ? [] : ["'\(globs[0])'"]) + (sort == nil ? [] : ["--sort"])
      + (top == nil ? [] : ["--top"])
  }

  /// The lines to show.
  /// - Parameters:
  ///   - path: of the checkpoint, for messages.
  ///   - value: what a line has of a key; nil, which comes last, where it has nothing.
  /// - Throws: `ConversionError.globMatchesNothing`.
  func selected<Line>(
    _ lines: [Line], path: String, name: (Line) -> String, value: (Line, Key) -> Double?
  ) throws -> [Line] {
    for glob in globs where !lines.contains(where: { matches(glob, name($0)) }) {
      throw ConversionError.globMatchesNothing(member: "the glob", glob: glob, path: path)
    }
    var result =
      globs.isEmpty ? lines : lines.filter { line in globs.contains { matches($0, name(line)) } }
    switch sort {
    case nil: break
    case .name: result.sort { name($0).utf8.lexicographicallyPrecedes(name($1).utf8) }
    case let key?:
      let values = result.map { value($0, key) ?? -.infinity }
      result = result.indices.sorted { (values[$1], $0) < (values[$0], $1) }.map { result[$0] }
    }
    return top.map { Array(result.prefix($0)) } ?? result
  }
}
