import LinearAlgebra

/// A borrowed row-major matrix `[rows, columns]`: elements that belong to somebody else (a mapped file, an array) and
/// live at least as long as the call they are passed to.
public struct MatrixView<Scalar: LinearAlgebraScalar> {
  /// `[rows, columns]`, row-major.
  public let elements: UnsafeBufferPointer<Scalar>
  /// The number of rows, I.
  public let rows: Int
  /// The number of columns, J.
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

  /// `‖W‖_F`, also where the squares vanish or overflow; not finite if an element is not.
  public var norm: Double {
    let squaredNorm = squaredNorm
    if Self.holds(squaredNorm) { return squaredNorm.squareRoot() }
    return withUnitScale { view, scale in view.squaredNorm.squareRoot() * Double(scale) }
  }

  /// Whether a sum of squares in double precision has lost nothing to its range.
  static func holds(_ squaredNorm: Double) -> Bool { (1e-250...1e250).contains(squaredNorm) }

  /// Calls `body` with a matrix whose elements can be squared: this one, or a copy divided by the power of two that is the
  /// second argument.
  func withUnitScale<Result>(_ body: (MatrixView, Scalar) throws -> Result) rethrows -> Result {
    guard let factor = Scalar.unitScale(of: elements) else { return try body(self, 1) }
    return try Matrix(rows: rows, columns: columns, elements: elements.map { $0 * factor })
      .withView { try body($0, 1 / factor) }
  }
}

extension Matrix {
  /// Calls `body` with a view of this matrix.
  /// - Throws: What `body` throws.
  public func withView<Result>(_ body: (MatrixView<Scalar>) throws -> Result) rethrows -> Result {
    try elements.withUnsafeBufferPointer { try body(MatrixView($0, rows: rows, columns: columns)) }
  }
}

// Nobody writes to the elements while there is a view of them.
extension MatrixView: @unchecked Sendable {}
