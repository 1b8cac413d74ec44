import Checkpoints
import MPOCheckpoints
import TensorNetworks

extension DenseCheckpoint {
  /// Calls `body` with a tensor's elements as a matrix: those of the file where they need no widening, else a copy, for
  /// which the file's bytes are in memory only while it is made.
  /// - Parameter expert: which of the matrices that are stacked in the tensor; nil for the whole of it.
  package func withMatrix<Scalar: CheckpointScalar, Result>(
    of tensor: TensorInfo, expert: Int? = nil, rows: Int, columns: Int, _ body: (MatrixView<Scalar>) throws -> Result
  ) throws -> Result {
    if tensor.dtype == Scalar.dtype {
      return try withMatrixBytes(of: tensor, expert: expert, rows: rows, columns: columns) { bytes in
        try Scalar.withElements(bytes, of: tensor.dtype) {
          try body(MatrixView($0, rows: rows, columns: columns))
        }
      }
    }
    let elements = UnsafeMutableBufferPointer<Scalar>.allocate(capacity: rows * columns)
    defer { elements.deallocate() }
    try withMatrixBytes(of: tensor, expert: expert, rows: rows, columns: columns) {
      try Scalar.decode($0, of: tensor.dtype, into: elements)
    }
    return try body(MatrixView(UnsafeBufferPointer(elements), rows: rows, columns: columns))
  }

  private func withMatrixBytes<Result>(
    of tensor: TensorInfo, expert: Int?, rows: Int, columns: Int, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard let expert else { return try withBytes(of: tensor, body) }
    let byteCount = rows * columns * tensor.dtype.bitWidth / 8
    return try withBytes(of: tensor, in: expert * byteCount..<(expert + 1) * byteCount, body)
  }
}
