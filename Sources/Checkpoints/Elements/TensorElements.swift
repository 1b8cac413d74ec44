/// Conversion between the bytes of a tensor (little-endian, at any alignment) and the numbers to compute with.
///
/// Every conversion to a narrower type rounds to nearest, ties to even. A finite value that would become infinite is an
/// error; infinities and NaN stay what they are, though the payload of a NaN may change. Only F16, BF16, F32 and F64
/// are converted.
public enum TensorElements {
  // MARK: - From bytes

  /// Calls `body` with the elements as `Float`: the bytes themselves where they are aligned F32, else a copy.
  ///
  /// - Throws: `ElementError` where the type is not converted or an F64 element does not fit; what `body` throws.
  public static func withFloats<Result>(
    of bytes: UnsafeRawBufferPointer, _ dtype: DType, _ body: (UnsafeBufferPointer<Float>) throws -> Result
  ) throws -> Result {
    if dtype == .f32, isAligned(bytes, to: Float.self) {
      return try bytes.withMemoryRebound(to: Float.self, body)
    }
    let copy = UnsafeMutableBufferPointer<Float>.allocate(capacity: bytes.count * 8 / dtype.bitWidth)
    defer { copy.deallocate() }
    try decode(bytes, as: dtype, into: copy)
    return try body(UnsafeBufferPointer(copy))
  }

  /// Calls `body` with the elements as `Double`: the bytes themselves where they are aligned F64, else a copy.
  ///
  /// - Throws: `ElementError` where the type is not converted; what `body` throws.
  public static func withDoubles<Result>(
    of bytes: UnsafeRawBufferPointer, _ dtype: DType, _ body: (UnsafeBufferPointer<Double>) throws -> Result
  ) throws -> Result {
    if dtype == .f64, isAligned(bytes, to: Double.self) {
      return try bytes.withMemoryRebound(to: Double.self, body)
    }
    let copy = UnsafeMutableBufferPointer<Double>.allocate(capacity: bytes.count * 8 / dtype.bitWidth)
    defer { copy.deallocate() }
    try decode(bytes, as: dtype, into: copy)
    return try body(UnsafeBufferPointer(copy))
  }

  /// Writes the elements to `elements`, which has room for exactly as many.
  /// - Throws: `ElementError` where the type is not converted, the sizes differ, or an element does not fit.
  public static func decode(
    _ bytes: UnsafeRawBufferPointer, as dtype: DType, into elements: UnsafeMutableBufferPointer<Float>
  ) throws {
    try check(bytes.count, dtype, elements.count)
    guard let source = bytes.baseAddress, let target = elements.baseAddress else { return }
    let count = elements.count
    switch dtype {
    case .f32: UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: bytes.count)
    case .f16:
      for index in 0..<count { target[index] = FloatBits.float(f16: load(source, index)) }
    case .bf16:
      for index in 0..<count { target[index] = FloatBits.float(bf16: load(source, index)) }
    case .f64:
      var overflows: UInt32 = 0
      for index in 0..<count {
        let value: Double = load(source, index)
        let rounded = Float(value)
        overflows |= rounded.magnitude == .infinity && value.magnitude != .infinity ? 1 : 0
        target[index] = rounded
      }
      if overflows != 0 {
        throw overflow(count, .f32, { load(source, $0) as Double }, { Float($0).isInfinite })
      }
    default: throw ElementError.notFloatingPoint(dtype)
    }
  }

  /// Writes the elements to `elements`, which has room for exactly as many; exact for every type.
  /// - Throws: `ElementError` where the type is not converted, the sizes differ, or an element does not fit.
  public static func decode(
    _ bytes: UnsafeRawBufferPointer, as dtype: DType, into elements: UnsafeMutableBufferPointer<Double>
  ) throws {
    try check(bytes.count, dtype, elements.count)
    guard let source = bytes.baseAddress, let target = elements.baseAddress else { return }
    let count = elements.count
    switch dtype {
    case .f64: UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: bytes.count)
    case .f32:
      for index in 0..<count { target[index] = Double(load(source, index) as Float) }
    case .f16:
      for index in 0..<count { target[index] = Double(FloatBits.float(f16: load(source, index))) }
    case .bf16:
      for index in 0..<count { target[index] = Double(FloatBits.float(bf16: load(source, index))) }
    default: throw ElementError.notFloatingPoint(dtype)
    }
  }

  // MARK: - To bytes

  /// Writes `elements` as `dtype` to `bytes`, which has room for exactly as many.
  ///
  /// - Throws: `ElementError.overflow` where a finite value has no finite rounding; `bytes` are then of no use.
  public static func encode(
    _ elements: UnsafeBufferPointer<Float>, as dtype: DType, into bytes: UnsafeMutableRawBufferPointer
  ) throws {
    try check(bytes.count, dtype, elements.count)
    guard let source = elements.baseAddress, let target = bytes.baseAddress else { return }
    let count = elements.count
    switch dtype {
    case .f32: target.copyMemory(from: source, byteCount: bytes.count)
    case .f64:
      for index in 0..<count { store(Double(source[index]), target, index) }
    case .f16:
      var overflows: UInt32 = 0
      for index in 0..<count {
        let bits = FloatBits.f16(source[index])
        overflows |= FloatBits.overflows(source[index], f16: bits)
        store(bits, target, index)
      }
      if overflows != 0 {
        throw overflow(count, dtype, { source[$0] }, { FloatBits.overflows($0, f16: FloatBits.f16($0)) != 0 })
      }
    case .bf16:
      var overflows: UInt32 = 0
      for index in 0..<count {
        let bits = FloatBits.bf16(source[index])
        overflows |= FloatBits.overflows(source[index], bf16: bits)
        store(bits, target, index)
      }
      if overflows != 0 {
        throw overflow(count, dtype, { source[$0] }, { FloatBits.overflows($0, bf16: FloatBits.bf16($0)) != 0 })
      }
    default: throw ElementError.notFloatingPoint(dtype)
    }
  }

  /// Writes `elements` as `dtype` to `bytes`, which has room for exactly as many; each is rounded once.
  ///
  /// - Throws: `ElementError.overflow` where a finite value has no finite rounding; `bytes` are then of no use.
  public static func encode(
    _ elements: UnsafeBufferPointer<Double>, as dtype: DType, into bytes: UnsafeMutableRawBufferPointer
  ) throws {
    try check(bytes.count, dtype, elements.count)
    guard let source = elements.baseAddress, let target = bytes.baseAddress else { return }
    let count = elements.count
    switch dtype {
    case .f64: target.copyMemory(from: source, byteCount: bytes.count)
    case .f32:
      var overflows: UInt32 = 0
      for index in 0..<count {
        let rounded = Float(source[index])
        overflows |= rounded.magnitude == .infinity && source[index].magnitude != .infinity ? 1 : 0
        store(rounded, target, index)
      }
      if overflows != 0 { throw overflow(count, dtype, { source[$0] }, { Float($0).isInfinite }) }
    case .f16:
      var overflows: UInt32 = 0
      for index in 0..<count {
        let float = FloatBits.floatRoundedToOdd(source[index])
        let bits = FloatBits.f16(float)
        overflows |= FloatBits.overflows(float, f16: bits)
        store(bits, target, index)
      }
      if overflows != 0 {
        let isTooLarge = { (value: Double) in
          let float = FloatBits.floatRoundedToOdd(value)
          return FloatBits.overflows(float, f16: FloatBits.f16(float)) != 0
        }
        throw overflow(count, dtype, { source[$0] }, isTooLarge)
      }
    case .bf16:
      var overflows: UInt32 = 0
      for index in 0..<count {
        let float = FloatBits.floatRoundedToOdd(source[index])
        let bits = FloatBits.bf16(float)
        overflows |= FloatBits.overflows(float, bf16: bits)
        store(bits, target, index)
      }
      if overflows != 0 {
        let isTooLarge = { (value: Double) in
          let float = FloatBits.floatRoundedToOdd(value)
          return FloatBits.overflows(float, bf16: FloatBits.bf16(float)) != 0
        }
        throw overflow(count, dtype, { source[$0] }, isTooLarge)
      }
    default: throw ElementError.notFloatingPoint(dtype)
    }
  }

  // MARK: - Checks

  private static func check(_ byteCount: Int, _ dtype: DType, _ count: Int) throws {
    guard dtype.isDecomposable else { throw ElementError.notFloatingPoint(dtype) }
    let expected = count * dtype.bitWidth / 8
    guard byteCount == expected else { throw ElementError.sizeMismatch(bytes: byteCount, expected: expected) }
  }

  private static func isAligned<Element>(_ bytes: UnsafeRawBufferPointer, to type: Element.Type) -> Bool {
    Int(bitPattern: bytes.baseAddress).isMultiple(of: MemoryLayout<Element>.alignment)
      && bytes.count.isMultiple(of: MemoryLayout<Element>.size)
  }

  /// The error for the first finite element that `overflows`.
  private static func overflow<Element: BinaryFloatingPoint>(
    _ count: Int, _ target: DType, _ element: (Int) -> Element, _ overflows: (Element) -> Bool
  ) -> ElementError {
    let index = (0..<count).first { element($0).isFinite && overflows(element($0)) } ?? 0
    return .overflow(index: index, value: Double(element(index)), target: target)
  }

  @inline(__always)
  private static func load<Element: BitwiseCopyable>(_ source: UnsafeRawPointer, _ index: Int) -> Element {
    source.loadUnaligned(fromByteOffset: index &* MemoryLayout<Element>.size, as: Element.self)
  }

  @inline(__always)
  private static func store<Element: BitwiseCopyable>(
    _ element: Element, _ target: UnsafeMutableRawPointer, _ index: Int
  ) {
    target.storeBytes(of: element, toByteOffset: index &* MemoryLayout<Element>.size, as: Element.self)
  }
}
