/// How a matrix `[I, J]` is split over the sites of a matrix product operator.
///
/// The shape's matrix may be larger: its last rows and columns are padding with zeros, cut off again on the way back.
public struct MatrixSplit: Sendable, Hashable, Codable {
  /// I, without padding.
  public let rows: Int
  /// J, without padding.
  public let columns: Int
  /// At least `rows` × `columns`.
  public let shape: MPOShape

  /// A split of a matrix `[rows, columns]`; `fits` tells whether the shape is large enough.
  public init(rows: Int, columns: Int, shape: MPOShape) {
    self.rows = rows
    self.columns = columns
    self.shape = shape
  }

  /// Of a factorisation of low rank, which is an operator of two sites.
  /// - Precondition: both sides are at least 2.
  public static func lowRank(rows: Int, columns: Int) -> MatrixSplit {
    MatrixSplit(rows: rows, columns: columns, shape: .lowRank(rows: rows, columns: columns))
  }

  /// `I · J`: the numbers of the dense matrix. Overflow is excluded where `fits` holds.
  public var denseCount: Int { rows * columns }

  /// Whether the sides are positive and no longer than those of the shape.
  public var fits: Bool { rows > 0 && columns > 0 && rows <= shape.rows && columns <= shape.columns }
}
