import Checkpoints
import Foundation
import LinearAlgebra
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

@Suite struct IntegerEncodingTests {
  private func elements(_ count: Int) -> [Float] {
    var generator = SeededGenerator(seed: 17)
    return (0..<count).map { _ in Float.random(in: -1...1, using: &generator) }
  }

  private func roundTrip(
    _ encoding: ArrayEncoding, _ elements: [Float], pivots: [Int]? = nil, shape: [Int]
  ) throws -> (stored: [Float], read: [Float], entries: [String: [UInt8]]) {
    var entries: [String: [UInt8]] = [:]
    let stored = try encoding.encode(elements, pivots: pivots, of: "w", shape: shape) { entries[$1.name] = Array($0) }
    for entry in encoding.entries(of: "w", shape: shape) {
      #expect(entries[entry.name]?.count == entry.byteCount, "\(entry.name)")
    }
    let read: [Float] = try encoding.decode("w", shape: shape) { entry, body in
      try (entries[entry.name] ?? []).withUnsafeBytes(body)
    }
    return (stored, read, entries)
  }

  @Test(arguments: IntegerGroups.bitChoices)
  func `integers of every size are read as they were written`(bits: Int) throws {
    let integers = try #require(IntegerGroups(bits: bits, group: 16))
    for shape in [[3, 37], [1, 5, 1, 21], [2, 3, 4, 5], [3]] {
      let elements = elements(shape.reduce(1, *))
      let (stored, read, _) = try roundTrip(.grouped(integers, shape: shape), elements, shape: shape)
      #expect(stored == read)
      let error = zip(elements, read).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(error < 2 / Float(integers.largestCode) && error > 0)
    }
  }

  /// Codes are a stream of bits, the lowest first; each row begins at a byte.
  @Test func `codes of three bits lie as FORMAT.md says`() throws {
    let integers = try #require(IntegerGroups(bits: 3))
    let rounded = RoundedMatrix(
      integers: integers, rows: 2, columns: 3, codes: [0b101, 0b011, 0b110, 1, 2, 3], scales: [1, 2])
    #expect(rounded.packedCodes == [0b10_011_101, 0b1, 0b11_010_001, 0])
    let read = rounded.packedCodes.withUnsafeBytes {
      RoundedMatrix(integers: integers, columns: 3, packedCodes: $0, scales: [1, 2])
    }
    #expect(read == rounded)
    #expect(rounded.matrix(as: Float.self).elements == [1.5, -0.5, 2.5, -5, -3, -1])
  }

  @Test func `pivots of integers are the identity`() throws {
    let integers = try #require(IntegerGroups(bits: 4, group: 16))
    let shape = [1, 40, 1, 16]
    let encoding = ArrayEncoding.grouped(integers, shape: shape, pivots: .left)
    var elements = elements(40 * 16)
    let pivots = (0..<16).map { 2 * $0 }
    for (column, row) in pivots.enumerated() {
      for other in 0..<16 { elements[row * 16 + other] = other == column ? 1 : 0 }
    }
    let (stored, read, _) = try roundTrip(encoding, elements, pivots: pivots, shape: shape)
    #expect(stored == read)
    for (column, row) in pivots.enumerated() {
      #expect((0..<16).allSatisfy { read[row * 16 + $0] == ($0 == column ? 1 : 0) })
    }
  }

  @Test func `its JSON is read as it is written, and refused with what it can't have`() throws {
    let encoding = ArrayEncoding.grouped(try #require(IntegerGroups("int3/64")), shape: [6, 50])
    let json = try JSONEncoder().encode(encoding)
    #expect(try JSONDecoder().decode(ArrayEncoding.self, from: json) == encoding)
    for change in [("\"bits\":3", "\"bits\":7"), ("\"group\":64", "\"group\":48"), ("\"bits\":3", "\"bits\":-1")] {
      let text = String(decoding: json, as: UTF8.self).replacingOccurrences(of: change.0, with: change.1)
      #expect(throws: DecodingError.self) { try JSONDecoder().decode(ArrayEncoding.self, from: Data(text.utf8)) }
    }
    let integers = try #require(IntegerGroups("int4"))
    #expect(ArrayEncoding(.grouped(integers, columns: 7)).problem(role: .central, shape: [1, 6, 1, 50]) != nil)
    #expect(ArrayEncoding(.grouped(integers, columns: 0)).problem(role: .central, shape: [1, 6, 1, 50]) != nil)
    #expect(ArrayEncoding(.grouped(integers, columns: -50)).problem(role: .central, shape: [1, 6, 1, 50]) != nil)
    #expect(ArrayEncoding(.grouped(integers, columns: 50)).problem(role: .permutation, shape: [50]) != nil)
    #expect(ArrayEncoding(.grouped(integers, columns: 50)).problem(role: .central, shape: [1, 6, 1, 50]) == nil)
  }

  @Test func `a scale that is not finite is refused`() throws {
    let integers = try #require(IntegerGroups("int4"))
    let encoding = ArrayEncoding.grouped(integers, shape: [2, 32])
    var (_, _, entries) = try roundTrip(encoding, elements(64), shape: [2, 32])
    entries["w.scales"] = [0, 0x7C, 0, 0]
    #expect(throws: ArrayEncodingError.infiniteScale) {
      let _: [Float] = try encoding.decode("w", shape: [2, 32]) { entry, body in
        try (entries[entry.name] ?? []).withUnsafeBytes(body)
      }
    }
    #expect(throws: ArrayEncodingError.scaleOutOfRange) {
      _ = try encoding.encode([Float](repeating: 1e30, count: 64), pivots: nil, of: "w", shape: [2, 32]) { _, _ in }
    }
  }
}
