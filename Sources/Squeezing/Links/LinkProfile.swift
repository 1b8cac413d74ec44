/// What squeezing needs to know of matrices that share a side: what each loses when one factor on that side serves all.
public struct LinkProfile: Sendable, Hashable, Codable {
  /// Of the operator that they would be ranges of.
  public let name: String
  /// The names of the layers, in the order in which they are stacked.
  public let members: [String]
  /// How the matrices are stacked.
  public let stacking: Stacking
  /// `[member][rank]`, ranks from 0: the squared error of each matrix over its squared norm, in its metric where it has one.
  public let squaredErrors: [[Double]]

  /// How linked matrices are stacked to the matrix of their operator.
  public enum Stacking: String, Sendable, Hashable, Codable {
    /// One below the other: they have the columns in common.
    case rows
    /// Side by side: they have the rows in common.
    case columns
  }

  /// A profile of matrices that may be linked; `squaredErrors` is `[member][rank]`.
  public init(name: String, members: [String], stacking: Stacking, squaredErrors: [[Double]]) {
    (self.name, self.members, self.stacking, self.squaredErrors) = (name, members, stacking, squaredErrors)
  }

  enum CodingKeys: String, CodingKey {
    case name, members, stacking
    case squaredErrors = "squared_errors"
  }

  /// The sides of the operator's matrix; nil for matrices that have no side in common.
  func sides(of layers: [LayerProfile]) -> (rows: Int, columns: Int)? {
    guard let first = layers.first else { return nil }
    switch stacking {
    case .rows:
      guard layers.allSatisfy({ $0.columns == first.columns }) else { return nil }
      return (layers.reduce(0) { $0 + $1.rows }, first.columns)
    case .columns:
      guard layers.allSatisfy({ $0.rows == first.rows }) else { return nil }
      return (first.rows, layers.reduce(0) { $0 + $1.columns })
    }
  }

  /// Whether the sizes of all parts agree, for profiles that come from a file.
  func isConsistent(_ layers: [LayerProfile]) -> Bool {
    guard layers.count > 1, layers.map(\.name) == members, let sides = sides(of: layers) else { return false }
    return squaredErrors.count == members.count
      && squaredErrors.allSatisfy {
        $0.count == min(sides.rows, sides.columns) + 1 && $0.allSatisfy { $0.isFinite && $0 >= 0 }
      }
  }
}
