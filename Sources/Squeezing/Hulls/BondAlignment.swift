/// Which bonds a plan chooses from, so that products with cores are of sizes that processors are fast at.
///
/// Full bonds, the least bond that is allowed, and bonds below the multiple are always among them: alignment puts no
/// budget out of reach, and nothing that is exact becomes inexact.
public enum BondAlignment: Sendable, Hashable {
  /// Multiples of 8 for factorisations of low rank with at least 256 rows and columns. There it costs next to no error
  /// and their layers get faster; smaller ones lose more by steps of 8, and chains are multiplied out before they are used.
  case auto
  /// Multiples of a number for all operators; of 1: any bond.
  case multiples(of: Int)

  /// The numbers that bonds may be multiples of.
  public static let allowed = 1...128

  /// What bonds of a factorisation of low rank are multiples of.
  /// - Parameter full: its full bond, the lesser of its rows and columns.
  func multiple(forFullBond full: Int) -> Int {
    switch self {
    case .auto: full >= 256 ? 8 : 1
    case .multiples(let number): number
    }
  }

  /// What bonds of chains are multiples of.
  var multipleOfChains: Int {
    switch self {
    case .auto: 1
    case .multiples(let number): number
    }
  }
}
