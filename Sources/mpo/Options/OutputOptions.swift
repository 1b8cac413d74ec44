import ArgumentParser
import Checkpoints
import Conversion
import Files
import Glibc

/// Options of the subcommands that write an output.
struct OutputOptions: ParsableArguments {
  @Flag(help: "Replace the output if it exists.")
  var force = false

  /// Begins an output, unless it would replace one of the inputs or a folder they are in.
  /// - Parameter replacing: whether an output may be replaced without --force too.
  func begin(
    _ path: String, kind: AtomicOutput.Kind, inputs: [String], replacing: Bool = false
  ) throws -> AtomicOutput {
    if path == "-" {
      throw ConversionError.badMember(
        member: "-o", value: path, reason: "this output can't go to stdout; name a file or a folder")
    }
    if let output = realPath(path) {
      for input in inputs.compactMap(realPath) where input == output || input.hasPrefix(output + "/") {
        throw ConversionError.badMember(
          member: "-o", value: path, reason: "contains the input; choose another output")
      }
    }
    return try AtomicOutput(at: path, kind: kind, replacing: force || replacing)
  }

  /// The path without links; nil where there is nothing.
  private func realPath(_ path: String) -> String? {
    guard let real = realpath(path, nil) else { return nil }
    defer { free(real) }
    return String(cString: real)
  }
}
