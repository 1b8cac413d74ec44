/// What can go wrong inside a matrix computation.
public enum LinearAlgebraError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A LAPACK routine gave up; `status` is its `info`.
  case noConvergence(routine: String, status: Int)
  /// A matrix that must be positive definite is not.
  case notPositiveDefinite(size: Int)
  /// A matrix has elements that are not finite.
  case notFinite

  public var description: String {
    switch self {
    case .noConvergence(let routine, let status):
      "LAPACK's \(routine) did not converge (info \(status)); keep the matrix dense with --exclude"
    case .notFinite: "a matrix has elements that are NaN, infinite or too large to square; keep it dense with --exclude"
    case .notPositiveDefinite(let size):
      "a second moment of \(size) × \(size) is not positive definite; add a larger ridge to its diagonal"
    }
  }
}
