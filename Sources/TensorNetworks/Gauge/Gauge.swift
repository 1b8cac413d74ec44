/// Which of the many equal chains of cores an operator is stored as: a bond of dimension d can carry any invertible d × d
/// matrix and its inverse without changing the operator.
public enum Gauge: String, Sendable, Hashable, Codable, CaseIterable {
  /// Left of the centre each core, as a matrix `[d·i·j, d']`, has d' *pivot rows* that are the identity and are not
  /// stored; right of the centre likewise with columns. `Σ d i j d' − Σ d²` numbers: no number is redundant.
  case compact
  /// All cores but the central one are isometries; the central one carries the weight. With square cores between two frames,
  /// the frames are isometries and the square cores carry the weight. `Σ d i j d'` numbers.
  case canonical
  /// All cores are isometries, the singular values at the central bond are apart (STTP, arXiv 2103.04217).
  case spectral
}

extension MPOShape {
  /// The index of the bond that carries the singular values in the gauge `spectral`: left of the central core, or right of
  /// it when the central core is the first.
  public var centralBond: Int { max(0, centralIndex - 1) }

  /// The numbers that an operator with these bonds is stored with; indices of pivots are not counted.
  public func storedCount(bonds: [Int], gauge: Gauge) -> Int {
    switch gauge {
    case .compact: parameterCount(bonds: bonds) - bonds.reduce(0) { $0 + $1 * $1 }
    case .canonical: parameterCount(bonds: bonds)
    case .spectral: parameterCount(bonds: bonds) + bonds[centralBond]
    }
  }
}
