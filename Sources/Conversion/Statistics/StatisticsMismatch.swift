import Checkpoints
import Files
import Recipes

/// Statistics that are not those of a recipe.
public enum StatisticsMismatch: Error, Sendable, Hashable {
  /// The recipe has a metric, and no statistics are given.
  case missing(expected: StatisticsIdentity)
  /// The recipe has no metric.
  case unexpected(path: String, sha256: String)
  /// The file is another one.
  case differs(path: String, sha256: String, expected: StatisticsIdentity)
}

extension StatisticsMismatch: CustomStringConvertible {
  public var description: String {
    switch self {
    case .missing(let expected): "the recipe needs \(expected.text), but none were given"
    case .unexpected(let path, let sha256):
      "the recipe has no statistics, but \(escaped(path, limit: 4096)) (SHA-256 \(sha256)) was given"
    case .differs(let path, let sha256, let expected):
      "the recipe needs \(expected.text), but \(escaped(path, limit: 4096)) has SHA-256 \(sha256)"
    }
  }
}

extension StatisticsIdentity {
  /// What a message calls them.
  public var text: String {
    "statistics SHA-256 \(sha256)" + (description.map { " (\(escaped($0, limit: 400)))" } ?? "")
  }
}

extension CalibrationStatistics {
  /// Which statistics these are, for a recipe. Reads the file once.
  /// - Throws: `FileError` where it can't be read.
  public func identity(inputRidge: Double? = nil, outputRidge: Double? = nil) throws -> StatisticsIdentity {
    StatisticsIdentity(
      sha256: try identity.sha256, description: description, inputRidge: inputRidge, outputRidge: outputRidge)
  }
}

extension CalibrationStatistics? {
  /// The statistics with the ridges of the recipe.
  /// - Throws: `StatisticsMismatch` when they are not those that the recipe names.
  func checked(against expected: StatisticsIdentity?) throws -> CalibrationStatistics? {
    switch (self, expected) {
    case (nil, nil): return nil
    case (nil, let expected?): throw StatisticsMismatch.missing(expected: expected)
    case (let found?, nil): throw StatisticsMismatch.unexpected(path: found.path, sha256: try found.identity.sha256)
    case (var found?, let expected?):
      let sha256 = try found.identity.sha256
      guard sha256 == expected.sha256 else {
        throw StatisticsMismatch.differs(path: found.path, sha256: sha256, expected: expected)
      }
      found.inputRidge = expected.inputRidge
      found.outputRidge = expected.outputRidge
      return found
    }
  }
}
