import ArgumentParser
import Checkpoints
import Conversion
import SqueezeLoop

/// What the tool itself finds wrong.
enum Failure: Error, CustomStringConvertible {
  /// Something that was checked does not hold; the findings have been printed.
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

  /// The message of an error, with the names of options.
  static func text(of error: any Error) -> String {
    (error as? ConversionError)?.text(naming: RecipeOption.name) ?? "\(error)"
  }

  static func status(of error: any Error) -> Int32 {
    if error is Failure { return 3 }
    if case ConversionError.errorAboveMaximum = error { return 3 }
    if case SqueezeLoopError.baselineOutsideLimit = error { return 3 }
    return 1
  }
}
