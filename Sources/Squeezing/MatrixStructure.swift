/// What a matrix may become.
public enum MatrixStructure: String, Sendable, Codable, CaseIterable {
  /// A matrix product operator over the sites of its shape.
  case chain
  /// A factorisation of low rank, which is an MPO of two sites.
  case svd
  /// Whichever of the two, or the dense matrix, has the least error at its share of the budget.
  case auto
}
