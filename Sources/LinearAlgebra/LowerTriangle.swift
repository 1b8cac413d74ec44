import Glibc

/// A lower triangular matrix `[n, n]`, stored as the rows up to the diagonal, one after the other.
public struct LowerTriangle: Sendable, Equatable {
  /// n.
  public let size: Int
  /// `n (n + 1) / 2` values.
  public let packed: [Double]

  /// - Precondition: there are `size (size + 1) / 2` values.
  public init(size: Int, packed: [Double]) {
    precondition(packed.count == size * (size + 1) / 2)
    (self.size, self.packed) = (size, packed)
  }

  /// The lower triangle of a matrix, `[size, size]` row-major.
  init(of elements: [Double], size: Int) {
    self.size = size
    packed = Array(unsafeUninitializedCapacity: size * (size + 1) / 2) { target, count in
      elements.withUnsafeBufferPointer { source in
        guard let source = source.baseAddress, let base = target.baseAddress else { return }
        for row in 0..<size {
          (base + row * (row + 1) / 2).initialize(from: source + row * size, count: row + 1)
        }
      }
      count = size * (size + 1) / 2
    }
  }

  /// The element at a row and a column that is not right of the diagonal.
  public subscript(row: Int, column: Int) -> Double { packed[row * (row + 1) / 2 + column] }

  /// All elements, `[n, n]`, rounded to a precision; zeros above the diagonal. O(n²).
  public func matrix<Scalar: LinearAlgebraScalar>(as type: Scalar.Type = Double.self) -> Matrix<Scalar> {
    Matrix(rows: size, columns: size) { target in
      packed.withUnsafeBufferPointer { source in
        guard let source = source.baseAddress, let base = target.baseAddress else { return }
        for row in 0..<size {
          let start = base + row * size
          Scalar.narrow(source + row * (row + 1) / 2, count: row + 1, into: start)
          memset(start + row + 1, 0, (size - row - 1) * MemoryLayout<Scalar>.stride)
        }
      }
    }
  }
}
