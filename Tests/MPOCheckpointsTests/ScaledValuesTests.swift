import TestSupport
import Testing

@testable import MPOCheckpoints

@Suite struct ScaledValuesTests {
  private func random(_ shape: [Int], seed: UInt64 = 1) -> [Double] {
    var generator = SeededGenerator(seed: seed)
    return (0..<shape.reduce(1, *)).map { _ in Double.random(in: -1...1, using: &generator) }
  }

  @Test(arguments: [[1, 1, 1, 1], [3, 1, 1, 1], [1, 1, 1, 7], [3, 4, 5, 1], [3, 1, 5, 7], [3, 4, 5, 7]])
  func `every element is within half a step of its slice's scale`(scaleShape: [Int]) throws {
    let values = random([3, 4, 5, 7])
    let quantized = try #require(ScaledValues(values, shape: [3, 4, 5, 7], scaleShape: scaleShape))
    #expect(quantized.scales.count == scaleShape.reduce(1, *) && quantized.bytes.count == 420)
    let restored: [Double] = quantized.elements()
    var largest = [Double](repeating: 0, count: quantized.scales.count)
    for a in 0..<3 {
      for i in 0..<4 {
        for j in 0..<5 {
          for b in 0..<7 {
            let index = ((a * 4 + i) * 5 + j) * 7 + b
            let scale = zip([a, i, j, b], scaleShape).reduce(0) { $0 * $1.1 + ($1.1 == 1 ? 0 : $1.0) }
            let step = Double(quantized.scales[scale])
            #expect(abs(restored[index] - values[index]) <= step * 0.5001)
            #expect(restored[index] == Double(quantized.bytes[index]) * step)
            largest[scale] = max(largest[scale], abs(Double(quantized.bytes[index])))
          }
        }
      }
    }
    #expect(largest.allSatisfy { $0 == 127 })
  }

  @Test func `quantising what was quantised changes no byte`() throws {
    let quantized = try #require(ScaledValues(random([6, 4, 4, 8]), shape: [6, 4, 4, 8], scaleShape: [1, 4, 4, 8]))
    let again = try #require(
      ScaledValues(quantized.elements(as: Double.self), shape: [6, 4, 4, 8], scaleShape: [1, 4, 4, 8]))
    #expect(again.bytes == quantized.bytes)
  }

  @Test func `halves are rounded to even and zeros stay zeros`() throws {
    let values: [Float] = [127, 0.5, 1.5, -0.5, -2.5, 3.5, 0, -127]
    let quantized = try #require(ScaledValues(values, shape: [1, 1, 8, 1], scaleShape: [1, 1, 1, 1]))
    #expect(quantized.scales == [1] && quantized.bytes == [127, 0, 2, 0, -2, 4, 0, -127])
    let zeros = try #require(
      ScaledValues([0, 1, 0, -1] as [Float], shape: [2, 2], scaleShape: [1, 2]))
    #expect(zeros.scales[0] == 0 && zeros.elements(as: Float.self)[0] == 0)
    #expect(zeros.bytes == [0, 127, 0, -127])
  }

  @Test func `what is not finite, or too large for a scale, is not quantised`() {
    for value in [Double.nan, .infinity, -.infinity, 1e60] {
      #expect(ScaledValues([value, 1], shape: [2], scaleShape: [1]) == nil)
    }
    for value in [1e-60, 1e-300, Double.leastNonzeroMagnitude] {
      let tiny = ScaledValues([value, -value], shape: [2], scaleShape: [1])
      #expect(tiny?.elements(as: Double.self) == [0, 0])
    }
  }

  @Test func `scales take at most a thirty-second of the bytes, or are one`() {
    for shape in [
      [1, 1, 1, 1], [2, 3, 4, 5], [67, 4, 6, 128], [151, 1, 1536, 1], [1, 1536, 1, 151], [358, 10, 4, 384],
    ] {
      let scales = ScaledValues.scaleShape(of: shape)
      #expect(zip(scales, shape).allSatisfy { $0 == 1 || $0 == $1 })
      let count = scales.reduce(1, *)
      #expect(count == 1 || count * 4 * 32 <= shape.reduce(1, *))
    }
    #expect(ScaledValues.scaleShape(of: [67, 4, 6, 128]) == [67, 4, 6, 1])
    #expect(ScaledValues.scaleShape(of: [1, 1536, 1, 151]) == [1, 1536, 1, 1])
  }
}
