/// What is known of a tensor without reading its elements.
public struct TensorInfo: Sendable, Hashable {
  /// The tensor's full name: a safetensors key, or an HDF5 dataset path without the leading slash.
  public let name: String
  /// The type of the elements.
  public let dtype: DType
  /// Sizes of the axes, row-major; empty for a scalar.
  public let shape: [Int]
  /// Which side of a matrix is the layer's input.
  public let orientation: Orientation

  /// Which axes of a weight are the layer's output and input features.
  public enum Orientation: String, Sendable, Hashable, Codable {
    /// `[out, in, …]`: PyTorch's `Linear.weight`, and `[out, in, kh, kw]` of its convolutions.
    case outputInput = "out_in"
    /// `[…, in, out]`: Keras's dense kernels and `[kh, kw, in, out]` of its convolutions.
    case inputOutput = "in_out"
  }

  /// A tensor to write or to look up; `shape` has the sizes of its axes, none for a scalar.
  public init(name: String, dtype: DType, shape: [Int], orientation: Orientation = .outputInput) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.orientation = orientation
  }

  /// The name to compare and look up by.
  public var key: TensorName { TensorName(name) }

  /// The number of elements; 1 for a scalar. The readers have checked that it does not overflow.
  public var elementCount: Int { shape.reduce(1, *) }

  /// The size of the tensor's elements in bytes.
  public var byteCount: Int { elementCount * dtype.bitWidth / 8 }

  /// The size of the elements in bits, or `nil` where an axis is negative or the product of the axes overflows; zeros
  /// among them count as ones for that, so the product of any axes is safe.
  private var checkedBitCount: Int? {
    var bits = dtype.bitWidth
    for size in shape {
      guard size >= 0 else { return nil }
      let (product, overflows) = bits.multipliedReportingOverflow(by: max(size, 1))
      guard !overflows else { return nil }
      bits = product
    }
    return shape.contains(0) ? 0 : bits
  }

  /// `byteCount`, after the checks that a shape from outside needs.
  ///
  /// - Parameter failure: Makes the error to throw from its reason.
  package func checkedByteCount(orThrow failure: (String) -> any Error) throws -> Int {
    guard let bits = checkedBitCount else {
      throw failure("the size of its \(dtype.rawValue) elements of shape \(shape) overflows")
    }
    guard bits.isMultiple(of: 8) else {
      throw failure(
        "its \(dtype.rawValue) elements of shape \(shape) take \(bits) bits, which is not a whole number of bytes")
    }
    return bits / 8
  }
}

extension TensorInfo {
  /// Names are equal when their bytes are.
  public static func == (one: TensorInfo, other: TensorInfo) -> Bool {
    one.key == other.key && one.dtype == other.dtype && one.shape == other.shape
      && one.orientation == other.orientation
  }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(key)
    hasher.combine(shape)
  }
}
