import LinearAlgebra

/// A local tensor `T(k)` of shape `[d_{k-1}, i_k, j_k, d_k]`, row-major.
public struct MPOCore<Scalar: LinearAlgebraScalar>: Sendable, Equatable {
  /// `d_{k-1}`.
  public let leftBond: Int
  /// `i_k`.
  public let rowFactor: Int
  /// `j_k`.
  public let columnFactor: Int
  /// `d_k`.
  public let rightBond: Int
  /// The elements, row-major.
  public var elements: [Scalar]

  /// - Precondition: `elements.count` is the product of `shape`, `shape` has four sizes.
  public init(shape: [Int], elements: [Scalar]) {
    precondition(shape.count == 4 && shape.reduce(1, *) == elements.count)
    (leftBond, rowFactor, columnFactor, rightBond) = (shape[0], shape[1], shape[2], shape[3])
    self.elements = elements
  }

  /// `[d_{k-1}, i_k, j_k, d_k]`.
  public var shape: [Int] { [leftBond, rowFactor, columnFactor, rightBond] }

  /// `[d_{k-1} · i_k · j_k, d_k]`.
  public var leftUnfolding: Matrix<Scalar> {
    Matrix(rows: leftBond * rowFactor * columnFactor, columns: rightBond, elements: elements)
  }

  /// `[d_{k-1}, i_k · j_k · d_k]`.
  public var rightUnfolding: Matrix<Scalar> {
    Matrix(rows: leftBond, columns: rowFactor * columnFactor * rightBond, elements: elements)
  }

  /// The core with its elements rounded to another precision.
  func converted<Other: LinearAlgebraScalar>(to type: Other.Type) -> MPOCore<Other> {
    MPOCore<Other>(shape: shape, elements: leftUnfolding.converted(to: type).elements)
  }

  /// The core multiplied by a matrix `[d, leftBond]` at its left bond.
  func multipliedFromLeft(by matrix: Matrix<Scalar>) -> MPOCore {
    MPOCore(shape: [matrix.rows, rowFactor, columnFactor, rightBond], elements: (matrix * rightUnfolding).elements)
  }

  /// The core multiplied by a matrix `[rightBond, d]` at its right bond.
  func multipliedFromRight(by matrix: Matrix<Scalar>) -> MPOCore {
    MPOCore(shape: [leftBond, rowFactor, columnFactor, matrix.columns], elements: (leftUnfolding * matrix).elements)
  }
}
