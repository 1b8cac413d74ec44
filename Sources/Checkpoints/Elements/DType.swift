/// The element type of a tensor, named as the safetensors format names it.
public enum DType: String, Sendable, Hashable, Codable, CaseIterable {
  /// Booleans of a byte.
  case bool = "BOOL"
  /// Floating point of 4 bits, two to a byte.
  case f4 = "F4"
  /// Floating point of 6 bits, 2 of them exponent.
  case f6E2M3 = "F6_E2M3"
  /// Floating point of 6 bits, 3 of them exponent.
  case f6E3M2 = "F6_E3M2"
  /// Unsigned integers of 8 bits.
  case u8 = "U8"
  /// Signed integers of 8 bits.
  case i8 = "I8"
  /// Floating point of 8 bits, 5 of them exponent.
  case f8E5M2 = "F8_E5M2"
  /// Floating point of 8 bits, 4 of them exponent.
  case f8E4M3 = "F8_E4M3"
  /// The same as `f8E5M2` with neither infinities nor a negative zero.
  case f8E5M2FNUZ = "F8_E5M2FNUZ"
  /// The same as `f8E4M3` with neither infinities nor a negative zero.
  case f8E4M3FNUZ = "F8_E4M3FNUZ"
  /// Powers of two of 8 bits, all of them exponent.
  case f8E8M0 = "F8_E8M0"
  /// Unsigned integers of 16 bits.
  case u16 = "U16"
  /// Signed integers of 16 bits.
  case i16 = "I16"
  /// Half precision of IEEE 754.
  case f16 = "F16"
  /// Half precision with the exponent of single precision (bfloat16).
  case bf16 = "BF16"
  /// Unsigned integers of 32 bits.
  case u32 = "U32"
  /// Signed integers of 32 bits.
  case i32 = "I32"
  /// Single precision.
  case f32 = "F32"
  /// Complex numbers of two in single precision.
  case c64 = "C64"
  /// Unsigned integers of 64 bits.
  case u64 = "U64"
  /// Signed integers of 64 bits.
  case i64 = "I64"
  /// Double precision.
  case f64 = "F64"

  /// The size of one element in bits; below 8 for the packed types.
  public var bitWidth: Int {
    switch self {
    case .f4: 4
    case .f6E2M3, .f6E3M2: 6
    case .bool, .u8, .i8, .f8E5M2, .f8E4M3, .f8E5M2FNUZ, .f8E4M3FNUZ, .f8E8M0: 8
    case .u16, .i16, .f16, .bf16: 16
    case .u32, .i32, .f32: 32
    case .c64, .u64, .i64, .f64: 64
    }
  }

  /// Whether a matrix of this type can be decomposed: the floating-point types that weights are computed in.
  public var isDecomposable: Bool {
    switch self {
    case .f16, .bf16, .f32, .f64: true
    default: false
    }
  }
}
