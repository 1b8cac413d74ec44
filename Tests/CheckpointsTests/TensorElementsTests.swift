import Testing

@testable import Checkpoints

@Suite struct TensorElementsTests {
  private func encoded<Element>(_ values: [Element], as dtype: DType) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xAA, count: values.count * dtype.bitWidth / 8)
    try bytes.withUnsafeMutableBytes { bytes in
      if let values = values as? [Float] {
        try values.withUnsafeBufferPointer { try TensorElements.encode($0, as: dtype, into: bytes) }
      } else if let values = values as? [Double] {
        try values.withUnsafeBufferPointer { try TensorElements.encode($0, as: dtype, into: bytes) }
      }
    }
    return bytes
  }

  private func floats(_ bytes: [UInt8], as dtype: DType) throws -> [Float] {
    try bytes.withUnsafeBytes { try TensorElements.withFloats(of: $0, dtype) { Array($0) } }
  }

  private func doubles(_ bytes: [UInt8], as dtype: DType) throws -> [Double] {
    try bytes.withUnsafeBytes { try TensorElements.withDoubles(of: $0, dtype) { Array($0) } }
  }

  private func words(_ bytes: [UInt8]) -> [UInt16] {
    stride(from: 0, to: bytes.count, by: 2).map { UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8 }
  }

  private func bytes(_ words: some Sequence<UInt16>) -> [UInt8] {
    words.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
  }

  /// The exact value of a pattern, from the definition of the format.
  private func value(_ bits: UInt16, exponentBits: Int) -> Double {
    let fractionBits = 15 - exponentBits
    let bias = 1 << (exponentBits - 1) - 1
    let exponent = Int(bits & 0x7FFF) >> fractionBits
    let fraction = Double(Int(bits) & (1 << fractionBits - 1))
    let sign = bits & 0x8000 == 0 ? 1.0 : -1.0
    let scale = { (power: Int) in Double(sign: .plus, exponent: power, significand: 1) }
    if exponent == 1 << exponentBits - 1 { return fraction == 0 ? sign * .infinity : .nan }
    if exponent == 0 { return sign * fraction * scale(1 - bias - fractionBits) }
    return sign * (1 + fraction * scale(-fractionBits)) * scale(exponent - bias)
  }

  @Test(arguments: [(DType.f16, 5), (.bf16, 8)])
  func `all 65536 patterns have their value and come back`(dtype: DType, exponentBits: Int) throws {
    let patterns = Array(UInt16.min...UInt16.max)
    let widened = try floats(bytes(patterns), as: dtype)
    let widenedTwice = try doubles(bytes(patterns), as: dtype)
    var wrong = 0
    for (pattern, (float, double)) in zip(patterns, zip(widened, widenedTwice)) {
      let expected = value(pattern, exponentBits: exponentBits)
      let isRight =
        expected.isNaN
        ? float.isNaN && double.isNaN
        : Double(float).bitPattern == expected.bitPattern && double.bitPattern == expected.bitPattern
      wrong += isRight ? 0 : 1
    }
    #expect(wrong == 0)
    for back in [words(try encoded(widened, as: dtype)), words(try encoded(widenedTwice, as: dtype))] {
      let mismatches = zip(zip(patterns, back), widened).filter { pair, float in
        float.isNaN ? !value(pair.1, exponentBits: exponentBits).isNaN : pair.0 != pair.1
      }
      #expect(mismatches.isEmpty)
    }
  }

  @Test(arguments: [(DType.f16, 5), (.bf16, 8)])
  func `ties go to the even neighbour and everything else to the nearest`(dtype: DType, exponentBits: Int) throws {
    // Between every two neighbouring finite patterns: the middle, and the numbers next to it on both sides.
    let top: UInt16 = dtype == .f16 ? 0x7BFF : 0x7F7F
    var wrong = 0
    let lower = Array(UInt16(0)..<top)
    let middles = lower.map {
      (value($0, exponentBits: exponentBits) + value($0 + 1, exponentBits: exponentBits)) / 2
    }
    for sign in [1.0, -1.0] {
      let bit: UInt16 = sign < 0 ? 0x8000 : 0
      let at = words(try encoded(middles.map { sign * $0 }, as: dtype))
      let below = words(try encoded(middles.map { sign * $0.nextDown }, as: dtype))
      let above = words(try encoded(middles.map { sign * $0.nextUp }, as: dtype))
      for (index, pattern) in lower.enumerated() {
        let even = pattern.isMultiple(of: 2) ? pattern : pattern + 1
        if at[index] != even | bit || below[index] != pattern | bit || above[index] != (pattern + 1) | bit {
          wrong += 1
        }
      }
      // The same from Float, where the middles are exact (they are not for the smallest BF16).
      let floats = middles.map { Float(sign * $0) }
      let atFloat = words(try encoded(floats, as: dtype))
      let belowFloat = words(try encoded(floats.map { sign > 0 ? $0.nextDown : $0.nextUp }, as: dtype))
      let aboveFloat = words(try encoded(floats.map { sign > 0 ? $0.nextUp : $0.nextDown }, as: dtype))
      for (index, pattern) in lower.enumerated() where Double(floats[index]) == sign * middles[index] {
        let even = pattern.isMultiple(of: 2) ? pattern : pattern + 1
        if atFloat[index] != even | bit || belowFloat[index] != pattern | bit
          || aboveFloat[index] != (pattern + 1) | bit
        {
          wrong += 1
        }
      }
    }
    #expect(wrong == 0)
  }

  @Test func `F32 is rounded from F64 once`() throws {
    let values: [Double] = [1 + 0x1p-24, 1 + 3 * 0x1p-24, 0x1p-150, 0x1.8p-149, -0.0, .infinity, 0.1]
    #expect(try floats(encoded(values, as: .f32), as: .f32) == values.map { Float($0) })
    #expect(try floats(encoded(values, as: .f64), as: .f64) == values.map { Float($0) })
    #expect(try doubles(encoded(values, as: .f64), as: .f64) == values)
    let singles: [Float] = [0.1, -3, .leastNonzeroMagnitude, .greatestFiniteMagnitude]
    #expect(try doubles(encoded(singles, as: .f64), as: .f64) == singles.map { Double($0) })
    #expect(try doubles(encoded(singles, as: .f32), as: .f32) == singles.map { Double($0) })
  }

  @Test func `a finite value that would become infinite is an error that names it`() throws {
    let largest = Double(Float.greatestFiniteMagnitude)
    let cases: [(DType, fits: Double, tooLarge: Double)] = [
      (.f16, 65519.99, 65520), (.f16, 65519.99, 1e300),
      (.bf16, 0x1.FEFFFFp127, 0x1.FFp127), (.bf16, 1, largest),
      (.f32, largest, 0x1.FFFFFFp127), (.f32, largest, 1e300),
    ]
    for (dtype, fits, tooLarge) in cases {
      for sign in [1.0, -1.0] {
        _ = try encoded([.infinity, sign * fits], as: dtype)
        let error = ElementError.overflow(index: 3, value: sign * tooLarge, target: dtype)
        #expect(throws: error) {
          try encoded([.infinity, sign * fits, .nan, sign * tooLarge, 2 * sign * tooLarge], as: dtype)
        }
        if dtype != .f32, tooLarge <= largest {
          #expect(throws: error) { try encoded([.infinity, 0, .nan, Float(sign * tooLarge)] as [Float], as: dtype) }
        }
      }
    }
    let bytes = try encoded([1, 1e39], as: .f64)
    #expect(throws: ElementError.overflow(index: 1, value: 1e39, target: .f32)) { try floats(bytes, as: .f64) }
  }

  @Test func `infinities and NaN survive`() throws {
    for dtype in [DType.f16, .bf16, .f32, .f64] {
      let values = try floats(encoded([Float.infinity, -.infinity, .nan, -0.0], as: dtype), as: dtype)
      #expect(values[0] == .infinity && values[1] == -.infinity && values[2].isNaN)
      #expect(values[3] == 0 && values[3].sign == .minus)
      let fromDoubles = try doubles(encoded([Double.infinity, -.infinity, .nan], as: dtype), as: dtype)
      #expect(fromDoubles[0] == .infinity && fromDoubles[1] == -.infinity && fromDoubles[2].isNaN)
    }
    // A NaN whose payload is all in the bits that are cut must not become infinite.
    let hidden = Float(bitPattern: 0x7F80_0001)
    #expect(try floats(encoded([hidden], as: .bf16), as: .bf16)[0].isNaN)
    #expect(try floats(encoded([hidden], as: .f16), as: .f16)[0].isNaN)
  }

  @Test func `bytes need no alignment, and aligned ones are not copied`() throws {
    let values: [Float] = [1, -2, 3.5]
    for dtype in [DType.f16, .bf16, .f32, .f64] {
      let shifted = [0] + (try encoded(values, as: dtype))
      let (asFloats, asDoubles) = try shifted.withUnsafeBytes { bytes in
        let odd = UnsafeRawBufferPointer(rebasing: bytes[1...])
        return (
          try TensorElements.withFloats(of: odd, dtype) { Array($0) },
          try TensorElements.withDoubles(of: odd, dtype) { Array($0) }
        )
      }
      #expect(asFloats == values)
      #expect(asDoubles == [1, -2, 3.5])
    }
    let isView = try values.withUnsafeBytes { bytes in
      try TensorElements.withFloats(of: bytes, .f32) { UnsafeRawPointer($0.baseAddress) == bytes.baseAddress }
    }
    #expect(isView)
  }

  @Test func `other types and sizes that do not match are errors`() throws {
    #expect(throws: ElementError.notFloatingPoint(.i32)) { try floats([0, 0, 0, 0], as: .i32) }
    #expect(throws: ElementError.notFloatingPoint(.f8E4M3)) { try encoded([1 as Float], as: .f8E4M3) }
    #expect(throws: ElementError.sizeMismatch(bytes: 3, expected: 2)) { try floats([0, 0, 0], as: .f16) }
    #expect(try floats([], as: .f16) == [])
  }
}
