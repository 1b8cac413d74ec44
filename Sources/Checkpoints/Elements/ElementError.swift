/// Why elements could not be converted.
public enum ElementError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The type is none of F16, BF16, F32 and F64.
  case notFloatingPoint(DType)
  /// A finite value is beyond the largest of the target type; `index` is the first such element.
  case overflow(index: Int, value: Double, target: DType)
  /// The number of bytes does not match the number of elements.
  case sizeMismatch(bytes: Int, expected: Int)

  public var description: String {
    switch self {
    case .notFloatingPoint(let dtype): "\(dtype.rawValue) elements can't be converted to or from floating point"
    case .overflow(let index, let value, let target):
      "element \(index) is \(value), beyond the largest \(target.rawValue) number; choose a wider type"
    case .sizeMismatch(let bytes, let expected): "\(bytes) bytes where \(expected) were expected"
    }
  }
}
