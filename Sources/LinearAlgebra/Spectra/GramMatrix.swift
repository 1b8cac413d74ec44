/// A Gram matrix `Σ xxᵀ`, accumulated in double precision over blocks, so that neither the whole matrix nor a second copy
/// of it is needed in memory.
///
/// For the unfolding `M` of a tensor, `M Mᵀ` is the *reduced density matrix* of its row indices.
public struct GramMatrix: Sendable {
  /// The number of rows and columns.
  public let size: Int
  /// Of the products of single-precision elements.
  public let precision: GramPrecision
  private var upper: [Double]

  /// A matrix of zeros, `[size, size]`, to add to.
  public init(size: Int, precision: GramPrecision = .double) {
    self.size = size
    self.precision = precision
    upper = Array(repeating: 0, count: size * size)
  }

  /// Adds `XᵀX` for `X = [rows, size]`, contiguous. O(rows · size²).
  public mutating func addRows<Scalar: LinearAlgebraScalar>(_ x: UnsafePointer<Scalar>, rows: Int) {
    add(x, inner: rows, transposed: true)
  }

  /// Adds `XXᵀ` for `X = [size, columns]`, contiguous. O(columns · size²).
  public mutating func addColumns<Scalar: LinearAlgebraScalar>(_ x: UnsafePointer<Scalar>, columns: Int) {
    add(x, inner: columns, transposed: false)
  }

  private mutating func add<Scalar: LinearAlgebraScalar>(
    _ x: UnsafePointer<Scalar>, inner: Int, transposed: Bool
  ) {
    if Scalar.self == Float.self, precision == .double {
      addWidened(x, inner: inner, transposed: transposed)
    } else {
      addProducts(x, inner: inner, transposed: transposed)
    }
  }

  /// Products in the precision of the elements, a block of them at a time added to the sum.
  private mutating func addProducts<Scalar: LinearAlgebraScalar>(
    _ x: UnsafePointer<Scalar>, inner: Int, transposed: Bool
  ) {
    let innerPerBlock = 4096
    let size = size
    let block = UnsafeMutablePointer<Scalar>.allocate(capacity: max(1, size * size))
    defer { block.deallocate() }
    upper.withUnsafeMutableBufferPointer { sum in
      guard let sum = sum.baseAddress else { return }
      for first in stride(from: 0, to: inner, by: innerPerBlock) {
        Scalar.multiplyByTranspose(
          x + (transposed ? first * size : first), transposed: transposed, size: size,
          inner: min(innerPerBlock, inner - first), stride: transposed ? size : inner, addingTo: 0, into: block)
        for row in 0..<size {
          Scalar.addWidened(block + row * (size + 1), to: sum + row * (size + 1), count: size - row)
        }
      }
    }
  }

  /// Products of elements that are widened to double precision, a block of about a quarter of a million at a time.
  private mutating func addWidened<Scalar: LinearAlgebraScalar>(
    _ x: UnsafePointer<Scalar>, inner: Int, transposed: Bool
  ) {
    let size = size
    let innerPerBlock = min(inner, max(32, (1 << 18) / max(1, size)))
    let block = UnsafeMutablePointer<Double>.allocate(capacity: max(1, innerPerBlock * size))
    defer { block.deallocate() }
    upper.withUnsafeMutableBufferPointer { sum in
      guard let sum = sum.baseAddress else { return }
      for first in stride(from: 0, to: inner, by: max(1, innerPerBlock)) {
        let count = min(innerPerBlock, inner - first)
        if transposed {
          Scalar.widen(x + first * size, count: count * size, into: block)
        } else {
          for row in 0..<size { Scalar.widen(x + row * inner + first, count: count, into: block + row * count) }
        }
        Double.multiplyByTranspose(
          block, transposed: transposed, size: size, inner: count, stride: transposed ? size : count, addingTo: 1,
          into: sum)
      }
    }
  }

  /// Adds the sums of another matrix of the same size.
  public mutating func add(_ other: GramMatrix) {
    precondition(size == other.size)
    upper.withUnsafeMutableBufferPointer { sum in
      other.upper.withUnsafeBufferPointer { other in
        guard let sum = sum.baseAddress, let other = other.baseAddress else { return }
        Double.add(1, times: other, to: sum, count: size * size)
      }
    }
  }

  /// Whether the precision could hold the products: none was too large or too small for it.
  public var isHeld: Bool { precision.holds(trace: (0..<size).reduce(0) { $0 + upper[$1 * (size + 1)] }) }

  /// The accumulated matrix, both triangles filled.
  public consuming func matrix() -> Matrix<Double> {
    let size = size
    var elements: [Double] = []
    swap(&elements, &upper)
    elements.withUnsafeMutableBufferPointer { $0.mirrorUpperTriangle(size: size) }
    return Matrix(rows: size, columns: size, elements: elements)
  }
}
