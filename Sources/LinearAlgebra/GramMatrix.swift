import COpenBLAS

/// A Gram matrix `Σ xxᵀ` in double precision, accumulated over blocks, so that neither the whole matrix nor a second
/// copy of it is needed in memory.
///
/// For the unfolding `M` of a tensor, `M Mᵀ` is the *reduced density matrix* of its row indices.
public struct GramMatrix {
  /// The number of rows and columns.
  public let size: Int
  private var upper: [Double]
  /// How many elements are widened to double precision at a time.
  private static var blockElements: Int { 1 << 18 }

  public init(size: Int) {
    self.size = size
    upper = Array(repeating: 0, count: size * size)
  }

  /// Adds `XᵀX` for `X = [rows, size]`, contiguous. O(rows · size²).
  public mutating func addRows<Scalar: LinearAlgebraScalar>(_ x: UnsafePointer<Scalar>, rows: Int) {
    let size = size
    let rowsPerBlock = min(rows, max(32, Self.blockElements / size))
    withBlock(elements: rowsPerBlock * size) { block, sum in
      for first in stride(from: 0, to: rows, by: rowsPerBlock) {
        let count = min(rowsPerBlock, rows - first)
        Scalar.widen(x + first * size, count: count * size, into: block)
        cblas_dsyrk(
          CblasRowMajor, CblasUpper, CblasTrans, blasInt(size), blasInt(count), 1, block, blasInt(size),
          1, sum, blasInt(size))
      }
    }
  }

  /// Adds `XXᵀ` for `X = [size, columns]`, contiguous. O(columns · size²).
  public mutating func addColumns<Scalar: LinearAlgebraScalar>(_ x: UnsafePointer<Scalar>, columns: Int) {
    let columnsPerBlock = min(columns, max(32, Self.blockElements / size))
    let size = size
    withBlock(elements: columnsPerBlock * size) { block, sum in
      for first in stride(from: 0, to: columns, by: columnsPerBlock) {
        let count = min(columnsPerBlock, columns - first)
        for row in 0..<size {
          Scalar.widen(x + row * columns + first, count: count, into: block + row * count)
        }
        cblas_dsyrk(
          CblasRowMajor, CblasUpper, CblasNoTrans, blasInt(size), blasInt(count), 1, block, blasInt(count),
          1, sum, blasInt(size))
      }
    }
  }

  /// The accumulated matrix, both triangles filled.
  public consuming func matrix() -> Matrix<Double> {
    let size = size
    var elements: [Double] = []
    swap(&elements, &upper)
    elements.withUnsafeMutableBufferPointer { buffer in
      for row in 0..<size {
        for column in (row + 1)..<max(size, row + 1) { buffer[column * size + row] = buffer[row * size + column] }
      }
    }
    return Matrix(rows: size, columns: size, elements: elements)
  }

  private mutating func withBlock(
    elements: Int, _ body: (UnsafeMutablePointer<Double>, UnsafeMutablePointer<Double>) -> Void
  ) {
    let block = UnsafeMutablePointer<Double>.allocate(capacity: max(1, elements))
    defer { block.deallocate() }
    upper.withUnsafeMutableBufferPointer { body(block, $0.baseAddress!) }
  }
}
