import Checkpoints
import MPOCheckpoints
import TensorNetworks

extension DenseCheckpoint {
  /// Calls `body` with a tensor's elements as a matrix: those of the file where they need no widening, else a copy, for
  /// which the file's bytes are in memory only while it is made.
  package func withMatrix<Scalar: CheckpointScalar, Result>(
    of tensor: TensorInfo, rows: Int, columns: Int, _ body: (MatrixView<Scalar>) throws -> Result
  ) throws -> Result {
    if tensor.dtype == Scalar.dtype {
      return try withBytes(of: tensor) { bytes in
        try Scalar.withElements(bytes, of: tensor.dtype) {
          try body(MatrixView($0, rows: rows, columns: columns))
        }
      }
    }
    let elements = UnsafeMutableBufferPointer<Scalar>.allocate(capacity: tensor.elementCount)
    defer { elements.deallocate() }
    try withBytes(of: tensor) { try Scalar.decode($0, of: tensor.dtype, into: elements) }
    return try body(MatrixView(UnsafeBufferPointer(elements), rows: rows, columns: columns))
  }
}
