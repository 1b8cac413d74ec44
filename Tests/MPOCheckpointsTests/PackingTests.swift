import Checkpoints
import Foundation
import TestSupport
import Testing

@testable import MPOCheckpoints

/// Bytes like those of trained weights: elements from a normal distribution.
func weights(_ count: Int, _ dtype: DType, seed: UInt64 = 1) throws -> [UInt8] {
  var generator = SeededGenerator(seed: seed)
  let values = (0..<count).map { _ in
    (0..<12).reduce(-6 as Double) { sum, _ in sum + Double.random(in: 0..<1, using: &generator) } * 0.04
  }
  var bytes = [UInt8](repeating: 0, count: count * dtype.bitWidth / 8)
  try bytes.withUnsafeMutableBytes { target in
    try values.withUnsafeBufferPointer { try TensorElements.encode($0, as: dtype, into: target) }
  }
  return bytes
}

/// An entry, packed in memory.
struct PackedSample {
  let entry: PackedEntry
  var bytes: [UInt8]

  /// - Returns: nil where packing does not make it smaller.
  init?(_ elements: [UInt8], _ dtype: DType, blockBytes: Int = PackedEntry.defaultBlockBytes) throws {
    let info = TensorInfo(name: "x", dtype: dtype, shape: [elements.count * 8 / dtype.bitWidth])
    var packer = try EntryPacker(blockBytes: blockBytes)
    var bytes = [UInt8](repeating: 0, count: elements.count)
    let packed = try elements.withUnsafeBytes { elements in
      try packer.pack(elements, of: info) { part, offset in
        #expect(offset >= 0 && offset + part.count <= elements.count)
        bytes.replaceSubrange(offset..<offset + part.count, with: part)
      }
    }
    guard let packed else { return nil }
    #expect(packed.bytes < elements.count)
    entry = packed
    self.bytes = Array(bytes[..<packed.bytes])
  }

  /// The elements; of the blocks in `order`, all when it is nil.
  func unpacked(order: [Int]? = nil) throws -> [UInt8] {
    let layout = entry.layout
    return try bytes.withUnsafeBytes { stored in
      let table = try PackedTable(of: entry, UnsafeRawBufferPointer(rebasing: stored[..<layout.tableBytes]))
      var unpacker = try EntryUnpacker(table)
      var result = [UInt8](repeating: 0, count: layout.byteCount)
      for block in order ?? Array(0..<layout.blockCount) {
        let part = UnsafeRawBufferPointer(rebasing: stored[table.storedRange(ofBlock: block)])
        try result.withUnsafeMutableBytes {
          try unpacker.unpack(
            block: block, part, into: UnsafeMutableRawBufferPointer(rebasing: $0[layout.range(ofBlock: block)]))
        }
      }
      return result
    }
  }
}

@Suite struct PackingTests {
  @Test(arguments: [DType.f64, .f32, .f16, .bf16], [64, 4096, 256 << 10])
  func `weights come back bit for bit, smaller`(dtype: DType, blockBytes: Int) throws {
    for count in [1000, 4096, 4097, 100_000, 300_001] {
      let elements = try weights(count, dtype)
      let sample = try PackedSample(elements, dtype, blockBytes: blockBytes)
      // Blocks of a few elements cost more than they gain.
      if blockBytes > 64 { #expect(sample != nil) }
      guard let sample else { continue }
      #expect(try sample.unpacked() == elements)
    }
  }

  @Test func `the exponents of weights take a third of their room and the rest its own`() throws {
    for (dtype, bound) in [(DType.f32, 0.85), (.bf16, 0.70), (.f16, 0.88)] {
      let elements = try weights(500_000, dtype)
      let sample = try #require(try PackedSample(elements, dtype))
      #expect(Double(sample.bytes.count) < bound * Double(elements.count))
    }
  }

  @Test(arguments: DType.allCases)
  func `elements of any type and pattern come back bit for bit`(dtype: DType) throws {
    var generator = SeededGenerator(seed: 3)
    let size = max(1, dtype.bitWidth / 8)
    for count in [0, 1, 2, 15, 16, 17, 31, 64, 1000, 9999] where (count * dtype.bitWidth).isMultiple(of: 8) {
      let byteCount = count * dtype.bitWidth / 8
      let patterns: [[UInt8]] = [
        Array(repeating: 0, count: byteCount), Array(repeating: 0xA5, count: byteCount),
        (0..<byteCount).map { $0 % size == 0 ? UInt8(truncatingIfNeeded: $0 / size) : 0 },
        (0..<byteCount).map { _ in UInt8.random(in: 0...3, using: &generator) },
        (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &generator) },
      ]
      for blockBytes in [8, 48, 1024, 256 << 10] {
        for pattern in patterns {
          guard let sample = try PackedSample(pattern, dtype, blockBytes: blockBytes) else { continue }
          #expect(try sample.unpacked() == pattern)
        }
      }
    }
  }

  @Test func `zeros and counters all but vanish`() throws {
    let zeros = try #require(try PackedSample(Array(repeating: 0, count: 1 << 20), .f32))
    #expect(zeros.bytes.count < 2000)
    let ids = (0..<4096).flatMap { id in withUnsafeBytes(of: Int64(id).littleEndian) { Array($0) } }
    #expect(try #require(try PackedSample(ids, .i64)).bytes.count < ids.count / 4)
  }

  @Test func `noise is stored unpacked`() throws {
    var generator = SeededGenerator(seed: 5)
    for count in [10, 1000, 300_000] {
      let noise = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      #expect(try PackedSample(noise, .u8) == nil)
    }
  }

  @Test func `blocks are unpacked alone and in any order`() throws {
    let elements = try weights(20_000, .f32)
    let sample = try #require(try PackedSample(elements, .f32, blockBytes: 4096))
    let count = sample.entry.layout.blockCount
    #expect(count == 20)
    #expect(try sample.unpacked(order: Array((0..<count).reversed())) == elements)
    let last = try sample.unpacked(order: [count - 1])
    let range = sample.entry.layout.range(ofBlock: count - 1)
    #expect(last[range] == elements[range] && last[..<range.lowerBound].allSatisfy { $0 == 0 })
  }

  // MARK: - Damage

  @Test(arguments: [DType.f32, .bf16])
  func `every flipped bit is an error, or makes no difference`(dtype: DType) throws {
    let elements = try weights(400, dtype)
    var sample = try #require(try PackedSample(elements, dtype, blockBytes: 512))
    var harmless = 0
    for place in sample.bytes.indices {
      for bit in 0..<8 {
        sample.bytes[place] ^= 1 << UInt8(bit)
        do {
          if try sample.unpacked() == elements {
            harmless += 1
          } else {
            Issue.record("bit \(bit) of byte \(place) gave other elements")
          }
        } catch {
          #expect(error is PackingError)
        }
        sample.bytes[place] ^= 1 << UInt8(bit)
      }
    }
    // The bits behind the end of a deflated plane.
    #expect(harmless <= 7 * sample.entry.layout.blockCount * sample.entry.layout.elementSize)
  }

  /// An entry of 1000 zeros of F32 in one block: each plane deflated.
  private func zeros() throws -> PackedSample {
    try #require(try PackedSample(Array(repeating: 0, count: 4000), .f32))
  }

  /// Replaces a value of the table.
  private func set(_ sample: inout PackedSample, _ place: Int, _ value: UInt32) {
    withUnsafeBytes(of: value.littleEndian) { sample.bytes.replaceSubrange(place * 4..<place * 4 + 4, with: $0) }
  }

  @Test(arguments: [0, 1001, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt32])
  func `a plane of an impossible size is an error`(size: UInt32) throws {
    var sample = try zeros()
    set(&sample, 2, size)
    #expect(throws: PackingError.planeSize(block: 0, plane: 2, found: Int(size), limit: 1000)) {
      try sample.unpacked()
    }
  }

  @Test func `a table that does not add up is an error`() throws {
    var sample = try zeros()
    set(&sample, 0, 999)
    let error = #expect(throws: PackingError.self) { try sample.unpacked() }
    guard case .sizes = try #require(error) else { return #expect("\(try #require(error))".isEmpty) }
  }

  @Test func `a plane that inflates to more, to less or to nothing is an error`() throws {
    let sample = try zeros()
    let first = 5 * 4
    for other in [999, 1001, 100_000_000] {
      // The planes of another length in the place of the right ones.
      let stolen = try #require(try PackedSample(Array(repeating: 0, count: 4 * min(other, 250_000)), .f32))
      var changed = sample
      let layout = stolen.entry.layout
      let table = try stolen.bytes.withUnsafeBytes {
        try PackedTable(of: stolen.entry, UnsafeRawBufferPointer(rebasing: $0[..<layout.tableBytes]))
      }
      let size = Int(try #require(table.planeSizes(ofBlock: 0).first))
      let own = (changed.bytes.count - first) / 4
      guard size >= own else { continue }
      changed.bytes.replaceSubrange(
        first..<first + own, with: stolen.bytes[layout.tableBytes..<layout.tableBytes + own])
      #expect(throws: PackingError.notDeflated(block: 0, plane: 0, expected: 1000)) { try changed.unpacked() }
    }
    var garbage = sample
    garbage.bytes[first] = 0xFF
    #expect(throws: PackingError.notDeflated(block: 0, plane: 0, expected: 1000)) { try garbage.unpacked() }
  }

  @Test func `bytes behind the end of a deflated plane are an error`() throws {
    let sample = try zeros()
    let size = (sample.bytes.count - 20) / 4
    var longer = sample
    set(&longer, 0, UInt32(size + 1))
    longer.bytes.insert(0, at: 20 + size)
    let entry = PackedEntry(sample.entry.unpacked, blockBytes: sample.entry.blockBytes, bytes: sample.bytes.count + 1)
    let changed = PackedSample(entry, longer.bytes)
    #expect(throws: PackingError.notDeflated(block: 0, plane: 0, expected: 1000)) { try changed.unpacked() }
  }

  @Test func `other elements with a right shape fail the checksum`() throws {
    var sample = try zeros()
    sample.bytes[4 * 4] ^= 1
    let error = #expect(throws: PackingError.self) { try sample.unpacked() }
    guard case .checksum(block: 0, _, _) = try #require(error) else {
      return #expect("\(try #require(error))".isEmpty)
    }
  }
}

extension PackedSample {
  init(_ entry: PackedEntry, _ bytes: [UInt8]) {
    self.entry = entry
    self.bytes = bytes
  }
}

@Suite struct HuffmanDeflaterTests {
  private func deflated(_ bytes: [UInt8], room: Int? = nil) -> [UInt8]? {
    var target = [UInt8](repeating: 0, count: room ?? bytes.count + 1000)
    let size = bytes.withUnsafeBytes { source in
      target.withUnsafeMutableBytes { HuffmanDeflater.deflate(source, into: $0) }
    }
    return size.map { Array(target[..<$0]) }
  }

  /// Frequencies of 24 bytes that grow like Fibonacci's numbers want codes of 23 bits.
  private static let skewed: [UInt8] = {
    var (a, b) = (1, 1)
    return (0..<24).flatMap { byte in
      defer { (a, b) = (b, a + b) }
      return Array(repeating: UInt8(byte * 7), count: a)
    }
  }()

  @Test(arguments: [[7], [7, 7, 7], [1, 2], Array(0...255), (0..<10_001).map { UInt8($0 % 3 * ($0 % 50)) }, skewed])
  func `zlib inflates it`(bytes: [UInt8]) throws {
    let stored = try #require(deflated(bytes))
    var inflater = try Inflater()
    var result = [UInt8](repeating: 1, count: bytes.count)
    let isInflated = stored.withUnsafeBytes { stored in
      result.withUnsafeMutableBytes { inflater.inflate(stored, into: $0) }
    }
    #expect(isInflated)
    #expect(result == bytes)
  }

  @Test func `it fits exactly or not at all`() throws {
    let whole = try #require(deflated(Self.skewed))
    #expect(deflated(Self.skewed, room: whole.count) == whole)
    #expect(deflated(Self.skewed, room: whole.count - 1) == nil)
  }
}
