/// Which step is the cheapest.
public enum SqueezeCriterion: String, Sendable, Codable, CaseIterable {
  /// Growth of the squared relative error for every parameter saved, each matrix weighted by its number of elements:
  /// what keeps the mean squared relative error of all weights least. Neither a large norm nor a large size protects a
  /// matrix or gives it away.
  case errorPerParameter = "error-per-parameter"
  /// Growth of the relative error of the matrix (arXiv 2106.02205, algorithm 2).
  case error
}
