/// Conversions of single numbers on their bits, without branches, so that the compiler can do several at once on every
/// processor (the conversions of `Float16` are calls where the instruction set has none).
enum FloatBits {
  private static let signMask: UInt32 = 0x8000_0000
  private static let infinity: UInt32 = 0x7F80_0000

  @inline(__always)
  static func float(bf16 bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) &<< 16) }

  /// The value of an F16, exact.
  @inline(__always)
  static func float(f16 bits: UInt16) -> Float {
    let magnitude = (UInt32(bits) & 0x7FFF) &<< 13
    let exponent = magnitude & 0x0F80_0000
    // A normal number needs the exponent's bias changed by 112; infinity and NaN by 112 once more.
    let normal = magnitude &+ (112 &<< 23)
    let special = magnitude &+ (224 &<< 23)
    // A subnormal is made normal by a leading one, which the subtraction takes away again.
    let subnormal = (Float(bitPattern: magnitude &+ (113 &<< 23)) - Float(bitPattern: 113 &<< 23)).bitPattern
    let value = exponent == 0x0F80_0000 ? special : exponent == 0 ? subnormal : normal
    return Float(bitPattern: value | (UInt32(bits) & 0x8000) &<< 16)
  }

  /// The nearest F16, ties to even; what is too large becomes infinite.
  @inline(__always)
  static func f16(_ value: Float) -> UInt16 {
    let sign = value.bitPattern & signMask
    let magnitude = value.bitPattern & ~signMask
    let odd = (magnitude &>> 13) & 1
    let normal = (magnitude &- (112 &<< 23) &+ 0xFFF &+ odd) &>> 13
    // The last bit of 0.5 is worth 2^-24, as that of a subnormal F16 is: adding 0.5 rounds there.
    let half: UInt32 = 126 &<< 23
    let subnormal = (Float(bitPattern: magnitude) + Float(bitPattern: half)).bitPattern &- half
    let special: UInt32 = magnitude > infinity ? 0x7E00 : 0x7C00
    let rounded = magnitude >= 143 &<< 23 ? special : magnitude < 113 &<< 23 ? subnormal : normal
    return UInt16(truncatingIfNeeded: rounded | sign &>> 16)
  }

  /// The nearest BF16, ties to even; what is too large becomes infinite.
  @inline(__always)
  static func bf16(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    let rounded = (bits &+ 0x7FFF &+ ((bits &>> 16) & 1)) &>> 16
    let quiet = bits &>> 16 | 0x40
    return UInt16(truncatingIfNeeded: bits & ~signMask > infinity ? quiet : rounded)
  }

  /// 1 where a finite value became an infinite F16.
  @inline(__always)
  static func overflows(_ value: Float, f16 bits: UInt16) -> UInt32 {
    (bits & 0x7FFF == 0x7C00 ? 1 : 0) & (value.bitPattern & ~signMask < infinity ? 1 : 0)
  }

  /// 1 where a finite value became an infinite BF16.
  @inline(__always)
  static func overflows(_ value: Float, bf16 bits: UInt16) -> UInt32 {
    (bits & 0x7FFF == 0x7F80 ? 1 : 0) & (value.bitPattern & ~signMask < infinity ? 1 : 0)
  }

  /// The `Float` next to the value towards zero, with its last bit set where it is not the value itself.
  ///
  /// Rounding that once more to a type with at least two bits less gives what rounding the value directly would.
  @inline(__always)
  static func floatRoundedToOdd(_ value: Double) -> Float {
    let nearest = Float(value)
    let back = Double(nearest)
    let truncated = nearest.bitPattern &- (back.magnitude > value.magnitude ? 1 : 0)
    return Float(bitPattern: truncated | (back != value ? 1 : 0))
  }
}
