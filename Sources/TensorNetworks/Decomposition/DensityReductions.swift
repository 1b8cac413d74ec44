import LinearAlgebra

/// What the profile of a matrix has computed that its decomposition needs again: the tridiagonal forms of its reduced density
/// matrices left and right of the centre.
public struct DensityReductions: Sendable {
  /// Of all sites left of the centre; nil where there are none.
  public let left: TridiagonalReduction?
  /// Of all sites right of it, the last one the outermost; nil where there are none.
  public let right: TridiagonalReduction?

  /// Reductions that are known already.
  public init(left: TridiagonalReduction?, right: TridiagonalReduction?) { (self.left, self.right) = (left, right) }
}

extension TridiagonalReduction {
  /// The isometries of a truncation to `bonds` where only the last of them discards anything; else nil.
  /// - Parameter sites: from the outermost.
  func isometries(sites: [Int], bonds: [Int]) throws -> IsometryChain? {
    var chain = IsometryChain()
    var size = 1
    for (site, bond) in zip(sites, bonds).dropLast() {
      size *= site
      guard bond == size else { return nil }
      chain.append(.identity(size), site: site)
    }
    guard let site = sites.last, let bond = bonds.last, bond < size * site else { return nil }
    chain.append(try leadingEigenvectors(bond).transposed(), site: site)
    return chain
  }
}
