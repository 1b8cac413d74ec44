import ArgumentParser
import Checkpoints
import Conversion
import Files
import SqueezeLoop

/// What the tool itself finds wrong.
enum Failure: Error, CustomStringConvertible {
  /// A check failed; the findings have been printed.
  case checkFailed(String)

  var description: String {
    switch self {
    case .checkFailed(let reason): reason
    }
  }

  /// Whether an error comes from the work and not from the command line.
  static func isOwn(_ error: any Error) -> Bool {
    !(error is ValidationError || error is CleanExit || error is ExitCode) && !isFromParser(error)
  }

  private static func isFromParser(_ error: any Error) -> Bool {
    String(reflecting: type(of: error)).hasPrefix("ArgumentParser.")
  }

  /// What is printed of an error from the work: with the names of options, and with the option that helps, where there is
  /// one.
  static func message(of error: any Error) -> String {
    if case FileError.outputExists = error { return "\(error), or pass --force to replace it" }
    if SourceOptions.isOffered.withLock({ $0 }), "\(error)".hasSuffix(CheckpointError.leavingLink) {
      return "\(error), or pass --follow-links"
    }
    return (error as? ConversionError)?.text(naming: RecipeOption.name) ?? "\(error)"
  }

  static func status(of error: any Error) -> Int32 {
    if error is Failure { return 3 }
    if case ConversionError.errorAboveMaximum = error { return 3 }
    if case SqueezeLoopError.baselineOutsideLimit = error { return 3 }
    return 1
  }
}
