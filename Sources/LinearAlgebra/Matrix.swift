/// A dense matrix `[rows, columns]`, row-major.
@frozen
public struct Matrix<Scalar: LinearAlgebraScalar>: Sendable, Equatable {
  /// The number of rows, I.
  public let rows: Int
  /// The number of columns, J.
  public let columns: Int
  /// `rows · columns` elements.
  public var elements: [Scalar]

  /// - Precondition: `elements.count == rows · columns`.
  @inlinable
  public init(rows: Int, columns: Int, elements: [Scalar]) {
    precondition(elements.count == rows * columns, "\(elements.count) elements for \(rows) × \(columns)")
    self.rows = rows
    self.columns = columns
    self.elements = elements
  }

  /// A matrix whose elements `body` writes, every one of them.
  /// - Throws: What `body` throws.
  @inlinable
  public init(
    rows: Int, columns: Int, initializingWith body: (UnsafeMutableBufferPointer<Scalar>) throws -> Void
  ) rethrows {
    self.rows = rows
    self.columns = columns
    elements = try Array(unsafeUninitializedCapacity: rows * columns) { buffer, count in
      try body(UnsafeMutableBufferPointer(rebasing: buffer[..<(rows * columns)]))
      count = rows * columns
    }
  }

  /// The elements, given away: whoever has the only reference to them changes them in place, without a copy.
  consuming func takeElements() -> [Scalar] {
    var taken: [Scalar] = []
    swap(&taken, &elements)
    return taken
  }

  /// The identity, `[size, size]`.
  public static func identity(_ size: Int) -> Matrix {
    var result = Matrix(rows: size, columns: size, elements: Array(repeating: 0, count: size * size))
    for index in 0..<size { result[index, index] = 1 }
    return result
  }

  /// The element at a row and a column, both counted from 0.
  @inlinable
  public subscript(row: Int, column: Int) -> Scalar {
    get { elements[row * columns + column] }
    set { elements[row * columns + column] = newValue }
  }

  /// The same elements, in the same order, as a matrix of another shape with as many of them.
  @inlinable
  public func reshaped(rows: Int, columns: Int) -> Matrix {
    Matrix(rows: rows, columns: columns, elements: elements)
  }

  /// The symmetric `[size, size]` with these rows from the diagonal on, one after the other: `size (size + 1) / 2` values.
  /// O(size²).
  public init<Other: LinearAlgebraScalar>(symmetric packed: UnsafeBufferPointer<Other>, size: Int)
  where Scalar == Double {
    precondition(packed.count == size * (size + 1) / 2)
    self.init(rows: size, columns: size) { target in
      guard var row = packed.baseAddress, let base = target.baseAddress else { return }
      for index in 0..<size {
        Other.widen(row, count: size - index, into: base + index * (size + 1))
        row += size - index
      }
      target.mirrorUpperTriangle(size: size)
    }
  }

  /// The transpose, `[columns, rows]`. O(rows · columns).
  public func transposed() -> Matrix {
    Matrix(rows: columns, columns: rows) { target in
      elements.withUnsafeBufferPointer { source in
        Scalar.transpose(source.baseAddress!, rows: rows, columns: columns, into: target.baseAddress!)
      }
    }
  }

  /// The first `count` rows.
  @inlinable
  public func firstRows(_ count: Int) -> Matrix {
    Matrix(rows: count, columns: columns, elements: Array(elements[..<(count * columns)]))
  }

  /// The rows with these indices, in their order.
  public func selecting(rows indices: [Int]) -> Matrix {
    Matrix(rows: indices.count, columns: columns) { target in
      elements.withUnsafeBufferPointer { source in
        guard let source = source.baseAddress, let target = target.baseAddress else { return }
        for (row, index) in indices.enumerated() {
          precondition((0..<rows).contains(index))
          (target + row * columns).initialize(from: source + index * columns, count: columns)
        }
      }
    }
  }

  /// The elements, rounded to another precision.
  public func converted<Other: LinearAlgebraScalar>(to type: Other.Type) -> Matrix<Other> {
    if let same = self as? Matrix<Other> { return same }
    return Matrix<Other>(rows: rows, columns: columns) { target in
      elements.withUnsafeBufferPointer { source in
        guard let base = source.baseAddress, let written = target.baseAddress else { return }
        if let source = source as? UnsafeBufferPointer<Double> {
          Other.narrow(source.baseAddress!, count: source.count, into: written)
        } else if let target = target as? UnsafeMutableBufferPointer<Double> {
          Scalar.widen(base, count: source.count, into: target.baseAddress!)
        } else {
          for index in source.indices { target.initializeElement(at: index, to: Other(source[index])) }
        }
      }
    }
  }

  /// The matrix product; idle threads help with a large one. O(rows · columns · other.columns).
  /// - Precondition: `columns == other.rows`.
  public static func * (left: Matrix, right: Matrix) -> Matrix {
    precondition(left.columns == right.rows)
    return Matrix(rows: left.rows, columns: right.columns) { target in
      guard let base = target.baseAddress else { return }
      nonisolated(unsafe) let target = base
      let isLarge = left.rows * left.columns * right.columns >= 1 << 31
      let panelRows = isLarge ? 512 : max(1, left.rows)
      _ = mapInIdleThreads((left.rows + panelRows - 1) / panelRows) { panel in
        let rows = panel * panelRows..<min(left.rows, (panel + 1) * panelRows)
        left.multiply(
          rows: rows, by: right, columns: 0..<right.columns, into: target + rows.lowerBound * right.columns)
      }
    }
  }

  /// Writes some rows and columns of the product with `other` to `target`, `[rows.count, columns.count]`.
  /// - Precondition: `self.columns == other.rows`.
  public func multiply(
    rows: Range<Int>, by other: Matrix, columns: Range<Int>, into target: UnsafeMutablePointer<Scalar>
  ) {
    precondition(self.columns == other.rows && rows.upperBound <= self.rows && columns.upperBound <= other.columns)
    elements.withUnsafeBufferPointer { a in
      other.elements.withUnsafeBufferPointer { b in
        guard let a = a.baseAddress, let b = b.baseAddress else { return }
        Scalar.multiply(
          a + rows.lowerBound * self.columns, b + columns.lowerBound, stride: other.columns, into: target,
          stride: columns.count, rows: rows.count, inner: self.columns, columns: columns.count)
      }
    }
  }

  /// Writes the product with `other`, `[self.columns, columns]`, to `target`, whose rows are `stride` apart.
  public func multiply(
    _ other: UnsafePointer<Scalar>, columns: Int, into target: UnsafeMutablePointer<Scalar>, stride: Int
  ) {
    elements.withUnsafeBufferPointer { a in
      guard let a = a.baseAddress else { return }
      Scalar.multiply(
        a, other, stride: columns, into: target, stride: stride, rows: rows, inner: self.columns, columns: columns)
    }
  }

  /// Writes the product of `other`, `[rows, self.rows]`, with this matrix to `target`.
  public func multiplied(
    fromLeftBy other: UnsafePointer<Scalar>, rows: Int, into target: UnsafeMutablePointer<Scalar>
  ) {
    elements.withUnsafeBufferPointer { b in
      guard let b = b.baseAddress else { return }
      Scalar.multiply(
        other, b, stride: columns, into: target, stride: columns, rows: rows, inner: self.rows, columns: columns)
    }
  }

  /// Subtracts a matrix of the same shape, element by element.
  public mutating func subtract(_ other: Matrix) {
    precondition(rows == other.rows && columns == other.columns)
    elements.withUnsafeMutableBufferPointer { y in
      other.elements.withUnsafeBufferPointer { x in
        guard let x = x.baseAddress, let target = y.baseAddress else { return }
        Scalar.add(-1, times: x, to: target, count: y.count)
      }
    }
  }

  /// The element-wise product of two matrices of one shape.
  public func multipliedElementwise(by other: Matrix) -> Matrix {
    precondition(rows == other.rows && columns == other.columns)
    return Matrix(rows: rows, columns: columns) { target in
      elements.withUnsafeBufferPointer { a in
        other.elements.withUnsafeBufferPointer { b in
          guard let a = a.baseAddress, let b = b.baseAddress, let c = target.baseAddress else { return }
          Scalar.multiplyElements(a, b, into: c, count: target.count)
        }
      }
    }
  }

  /// Column c multiplied by `values[c]`.
  public func scaled(columnsBy values: [Scalar]) -> Matrix {
    precondition(values.count == columns)
    return Matrix(rows: rows, columns: columns) { target in
      elements.withUnsafeBufferPointer { source in
        values.withUnsafeBufferPointer { values in
          guard let a = source.baseAddress, let b = values.baseAddress, let c = target.baseAddress else { return }
          for row in 0..<rows {
            Scalar.multiplyElements(a + row * columns, b, into: c + row * columns, count: columns)
          }
        }
      }
    }
  }

  /// Row r multiplied by `values[r]`.
  @inlinable
  public func scaled(rowsBy values: [Scalar]) -> Matrix {
    precondition(values.count == rows)
    var result = self
    result.elements.withUnsafeMutableBufferPointer { target in
      for (row, value) in values.enumerated() {
        for place in (row * columns)..<((row + 1) * columns) { target[place] *= value }
      }
    }
    return result
  }

  /// Whether every element is exactly that of the identity.
  public var isIdentity: Bool {
    guard rows == columns, (0..<rows).allSatisfy({ self[$0, $0] == 1 }) else { return false }
    return elements.withUnsafeBufferPointer { elements in
      // Between two elements of the diagonal are zeros, whole rows of them and a column more.
      (1..<max(1, rows)).allSatisfy { row in
        let values = UnsafeBufferPointer(rebasing: elements[((row - 1) * (columns + 1) + 1)..<(row * (columns + 1))])
        // The sum of squares is not zero with NaN, the largest magnitude not with elements whose squares vanish.
        return Scalar.largestMagnitude(values) == 0 && Scalar.squaredNorm(values) == 0
      }
    }
  }

  /// The largest magnitude of an element, 0 for an empty matrix.
  public var largestMagnitude: Scalar { elements.withUnsafeBufferPointer { Scalar.largestMagnitude($0) } }

  /// The Frobenius norm, accumulated in double precision.
  public var norm: Double {
    elements.withUnsafeBufferPointer { Scalar.squaredNorm($0) }.squareRoot()
  }
}

extension UnsafeMutableBufferPointer<Double> {
  /// Copies what is above the diagonal of a `[size, size]` to the places below it.
  func mirrorUpperTriangle(size: Int) {
    // Square blocks, so that what is written in strides stays in the cache.
    let side = 32
    for firstRow in stride(from: 0, to: size, by: side) {
      for firstColumn in stride(from: firstRow, to: size, by: side) {
        for row in firstRow..<Swift.min(firstRow + side, size) {
          for column in Swift.max(row, firstColumn)..<Swift.max(row, Swift.min(firstColumn + side, size)) {
            self[column * size + row] = self[row * size + column]
          }
        }
      }
    }
  }
}
