/// Deflates bytes by how often each occurs and nothing else: one block with its own codes and without repetitions (RFC 1951,
/// 3.2.7). For weights that is as small as anything, and several times faster than zlib's way to the same.
enum HuffmanDeflater {
  /// The longest code: four of them and what is left of a byte fit in 64 bits.
  private static let longestCode = 14
  private static let endOfBlock = 256
  /// The order of the lengths of the codes for lengths.
  private static let lengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]

  /// Deflates `bytes` into `target`.
  /// - Returns: the deflated size; nil when `target` is too small for it.
  static func deflate(_ bytes: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
    var counts = frequencies(of: bytes)
    counts.append(1)  // of the end
    let literals = HuffmanCode(counts, longest: longestCode)
    // The codes' lengths, and that of the only distance, which is never used.
    let lengths = literals.lengths + [0]
    var lengthCounts = Array(repeating: 0, count: lengthOrder.count)
    for length in lengths { lengthCounts[Int(length)] += 1 }
    let lengthCode = HuffmanCode(lengthCounts, longest: 7)
    let bitCount = 17 + 3 * lengthOrder.count + lengthCode.bitCount(of: lengthCounts) + literals.bitCount(of: counts)
    let byteCount = (bitCount + 7) / 8
    guard byteCount <= target.count else { return nil }

    var writer = BitWriter(target)
    // The last block, with codes of its own, for 257 literals and one distance.
    writer.write(1 | 2 << 1, count: 3)
    writer.write(0, count: 5 + 5)
    writer.write(UInt64(lengthOrder.count - 4), count: 4)
    for symbol in lengthOrder { writer.write(UInt64(lengthCode.lengths[symbol]), count: 3) }
    for length in lengths { writer.write(lengthCode.codes[Int(length)], count: Int(lengthCode.lengths[Int(length)])) }
    writer.write(bytes, literals)
    writer.write(literals.codes[endOfBlock], count: Int(literals.lengths[endOfBlock]))
    writer.finish()
    return byteCount
  }

  /// How often each of the 256 bytes occurs.
  private static func frequencies(of bytes: UnsafeRawBufferPointer) -> [Int] {
    // Four counters for each, so that equal neighbours do not wait for each other.
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 4 * 256) { counters in
      counters.initialize(repeating: 0)
      for index in bytes.indices { counters[(index & 3) << 8 | Int(bytes[index])] &+= 1 }
      return (0..<256).map { byte in (0..<4).reduce(0) { $0 + Int(counters[$1 << 8 | byte]) } }
    }
  }
}

/// A canonical prefix code that is the shortest for given counts of symbols (Huffman 1952).
private struct HuffmanCode {
  /// In bits, of each symbol; 0 for those that do not occur.
  private(set) var lengths: [UInt8]
  /// Of each symbol, the first bit lowest, as deflate writes them.
  let codes: [UInt64]

  /// - Parameters:
  ///   - counts: of each symbol; at least two are positive.
  ///   - longest: no code is longer.
  init(_ counts: [Int], longest: Int) {
    var weights = counts
    lengths = Self.lengths(for: weights)
    // Flatter weights have shorter codes.
    while lengths.contains(where: { $0 > longest }) {
      weights = weights.map { $0 == 0 ? 0 : $0 / 2 + 1 }
      lengths = Self.lengths(for: weights)
    }
    var next = Array(repeating: UInt64(0), count: longest + 2)
    for length in lengths where length > 0 { next[Int(length) + 1] += 1 }
    // The first code of each length follows the last one of the length before.
    for length in 1...longest { next[length] = (next[length - 1] + next[length]) << 1 }
    codes = lengths.map { length in
      guard length > 0 else { return 0 }
      defer { next[Int(length)] += 1 }
      var (code, reversed) = (next[Int(length)], UInt64(0))
      for _ in 0..<length {
        reversed = reversed << 1 | code & 1
        code >>= 1
      }
      return reversed
    }
  }

  func bitCount(of counts: [Int]) -> Int { zip(counts, lengths).reduce(0) { $0 + $1.0 * Int($1.1) } }

  /// The depth of each symbol in a tree that joins the two lightest nodes again and again.
  private static func lengths(for weights: [Int]) -> [UInt8] {
    let leaves = weights.indices.filter { weights[$0] > 0 }.sorted { (weights[$0], $0) < (weights[$1], $1) }
    // Joined nodes come in the order of their weights, as the leaves do.
    var joined: [(weight: Int, children: (Int, Int))] = []
    joined.reserveCapacity(leaves.count)
    var (nextLeaf, nextJoined) = (0, 0)
    func lightest() -> (weight: Int, node: Int) {
      if nextJoined == joined.count || nextLeaf < leaves.count && weights[leaves[nextLeaf]] <= joined[nextJoined].weight
      {
        defer { nextLeaf += 1 }
        return (weights[leaves[nextLeaf]], nextLeaf)
      }
      defer { nextJoined += 1 }
      return (joined[nextJoined].weight, leaves.count + nextJoined)
    }
    while joined.count < leaves.count - 1 {
      let (a, b) = (lightest(), lightest())
      joined.append((a.weight + b.weight, (a.node, b.node)))
    }
    var depths = Array(repeating: UInt8(0), count: leaves.count + joined.count)
    for (index, node) in joined.enumerated().reversed() {
      let depth = depths[leaves.count + index] + 1
      depths[node.children.0] = depth
      depths[node.children.1] = depth
    }
    var lengths = Array(repeating: UInt8(0), count: weights.count)
    for (index, leaf) in leaves.enumerated() { lengths[leaf] = depths[index] }
    return lengths
  }
}

/// Writes bits, the lowest of each byte first.
private struct BitWriter {
  private let target: UnsafeMutableRawBufferPointer
  private var place = 0
  private var pending: UInt64 = 0
  private var pendingCount = 0

  /// - Parameter target: with room for everything that will be written.
  init(_ target: UnsafeMutableRawBufferPointer) { self.target = target }

  mutating func write(_ bits: UInt64, count: Int) {
    pending |= bits << UInt64(pendingCount)
    pendingCount += count
    flush()
  }

  /// The codes of bytes.
  mutating func write(_ bytes: UnsafeRawBufferPointer, _ code: HuffmanCode) {
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 256) { table in
      // A code and its length.
      for byte in 0..<256 { table.initializeElement(at: byte, to: code.codes[byte] << 8 | UInt64(code.lengths[byte])) }
      let grouped = bytes.count & ~3
      for first in stride(from: 0, to: grouped, by: 4) {
        for index in first..<(first + 4) {
          let entry = table[Int(bytes[index])]
          pending |= (entry >> 8) << UInt64(truncatingIfNeeded: pendingCount)
          pendingCount &+= Int(entry & 0xff)
        }
        flush()
      }
      for index in grouped..<bytes.count {
        write(code.codes[Int(bytes[index])], count: Int(code.lengths[Int(bytes[index])]))
      }
    }
  }

  /// Writes the whole bytes.
  @inline(__always)
  private mutating func flush() {
    let count = pendingCount >> 3
    if place + 8 <= target.count {
      target.storeBytes(of: pending.littleEndian, toByteOffset: place, as: UInt64.self)
    } else {
      for index in 0..<count { target[place + index] = UInt8(truncatingIfNeeded: pending >> UInt64(8 * index)) }
    }
    place += count
    pending >>= UInt64(8 * count)
    pendingCount &= 7
  }

  /// Writes what is left of the last byte.
  mutating func finish() {
    if pendingCount > 0 { target[place] = UInt8(truncatingIfNeeded: pending) }
  }
}
