import Files

/// Why a report can't be made.
public enum ReportError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Two things that are to stand side by side are of different models.
  case differentModels(path: String, other: String, reason: String)
  /// A plan or a profile whose sizes can't be.
  case contradiction(path: String, matrix: String)
  /// A glob of matrices to show in full matches none.
  case globMatchesNothing(glob: String, path: String)

  public var description: String {
    switch self {
    case .differentModels(let path, let other, let reason):
      "\(escaped(path, limit: 4096)): is of another model than \(escaped(other, limit: 4096)): \(reason); a report is "
        + "about one model"
    case .contradiction(let path, let matrix):
      "\(escaped(path, limit: 4096)): its records of '\(escaped(matrix))' contradict each other; make the file again"
    case .globMatchesNothing(let glob, let path):
      "\(escaped(path, limit: 4096)): '\(escaped(glob))' matches no matrix; 'mpo inspect' lists the names"
    }
  }
}
