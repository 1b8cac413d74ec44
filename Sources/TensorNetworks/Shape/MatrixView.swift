import LinearAlgebra

/// A borrowed row-major matrix `[rows, columns]`: elements that belong to somebody else (a mapped file, an array) and
/// live at least as long as the call they are passed to.
public struct MatrixView<Scalar: LinearAlgebraScalar> {
  public let elements: UnsafeBufferPointer<Scalar>
  public let rows: Int
  public let columns: Int

  /// - Precondition: `elements.count == rows · columns`, neither side 0.
  public init(_ elements: UnsafeBufferPointer<Scalar>, rows: Int, columns: Int) {
    precondition(rows > 0 && columns > 0 && elements.count == rows * columns)
    self.elements = elements
    self.rows = rows
    self.columns = columns
  }

  /// `‖W‖_F²`, in double precision; not finite if an element is not.
  public var squaredNorm: Double { Scalar.squaredNorm(elements) }
}

extension Matrix {
  /// Calls `body` with a view of this matrix.
  public func withView<Result>(_ body: (MatrixView<Scalar>) throws -> Result) rethrows -> Result {
    try elements.withUnsafeBufferPointer { try body(MatrixView($0, rows: rows, columns: columns)) }
  }
}
