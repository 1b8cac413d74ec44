/// What can go wrong inside a matrix computation.
public enum LinearAlgebraError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A LAPACK routine gave up; `status` is its `info`.
  case noConvergence(routine: String, status: Int)

  public var description: String {
    switch self {
    case .noConvergence(let routine, let status):
      "LAPACK's \(routine) did not converge (info \(status)); keep the matrix dense with --exclude"
    }
  }
}
