/// Which step is the cheapest.
public enum SqueezeCriterion: String, Sendable, Codable, CaseIterable {
  /// Growth of the squared relative error for every parameter saved.
  case errorPerParameter = "error-per-parameter"
  /// Growth of the relative error of the matrix (arXiv 2106.02205, algorithm 2).
  case error
}
