import CZlib
import Checkpoints
import Glibc

/// Packs one entry after another, block by block. One per thread: it keeps its buffers.
package struct EntryPacker: ~Copyable {
  private let blockBytes: Int
  private var deflater: Deflater
  private let shuffled: UnsafeMutableRawBufferPointer
  private let packed: UnsafeMutableRawBufferPointer

  /// - Parameter blockBytes: A multiple of 8.
  package init(blockBytes: Int = PackedEntry.defaultBlockBytes) throws(PackingError) {
    self.blockBytes = blockBytes
    deflater = try Deflater()
    shuffled = .allocate(byteCount: blockBytes, alignment: 64)
    packed = .allocate(byteCount: blockBytes, alignment: 64)
  }

  deinit {
    shuffled.deallocate()
    packed.deallocate()
  }

  /// Packs an entry.
  ///
  /// - Parameters:
  ///   - elements: The entry's bytes.
  ///   - write: Takes packed bytes and their offset in the packed entry: the blocks in their order, then the table,
  ///     which has its place in front of them. Nothing beyond the size of `elements` is ever written.
  /// - Returns: what the manifest has to say of it; nil when it would not become smaller, and what was written is of no
  ///   use.
  package mutating func pack(
    _ elements: UnsafeRawBufferPointer, of entry: TensorInfo,
    write: (UnsafeRawBufferPointer, _ offset: Int) throws -> Void
  ) throws -> PackedEntry? {
    let layout = PackedLayout(of: entry, blockBytes: blockBytes)
    guard layout.byteCount == elements.count, layout.tableBytes < elements.count else { return nil }
    var table: [UInt32] = []
    table.reserveCapacity(layout.blockCount * (layout.elementSize + 1))
    var offset = layout.tableBytes
    for block in 0..<layout.blockCount {
      let raw = UnsafeRawBufferPointer(rebasing: elements[layout.range(ofBlock: block)])
      let size = pack(raw, elementSize: layout.elementSize, &table)
      guard offset + size < elements.count else { return nil }
      try write(UnsafeRawBufferPointer(rebasing: packed[..<size]), offset)
      offset += size
    }
    try table.map(\.littleEndian).withUnsafeBytes { try write($0, 0) }
    return PackedEntry(entry, blockBytes: blockBytes, bytes: offset)
  }

  /// Packs a block into `packed` and adds its row to the table.
  /// - Returns: its size.
  private mutating func pack(
    _ raw: UnsafeRawBufferPointer, elementSize: Int, _ table: inout [UInt32]
  ) -> Int {
    let planes = UnsafeMutableRawBufferPointer(rebasing: shuffled[..<raw.count])
    shuffle(raw, elementSize: elementSize, to: planes)
    let count = raw.count / elementSize
    var end = 0
    for plane in 0..<elementSize {
      let bytes = UnsafeRawBufferPointer(rebasing: planes[plane * count..<(plane + 1) * count])
      let target = UnsafeMutableRawBufferPointer(rebasing: packed[end..<end + count])
      let room = UnsafeMutableRawBufferPointer(rebasing: target.dropLast())
      let size: Int? =
        switch Self.redundancy(of: bytes) {
        case .none: nil
        case .frequencies: HuffmanDeflater.deflate(bytes, into: room)
        case .repetitions: deflater.deflate(bytes, into: room)
        }
      if size == nil { target.copyMemory(from: bytes) }
      end += size ?? count
      table.append(UInt32(size ?? count))
    }
    table.append(checksum(of: raw))
    return end
  }

  /// What makes a plane smaller.
  private enum Redundancy {
    /// Nothing, as with the low bytes of weights.
    case none
    /// Some bytes are more frequent than others.
    case frequencies
    /// There is so little in it that repetitions are worth looking for.
    case repetitions
  }

  /// What a plane has, by the entropy of a sample.
  private static func redundancy(of plane: UnsafeRawBufferPointer) -> Redundancy {
    let count = min(plane.count, 4096)
    guard count >= 16 else { return .none }
    let step = plane.count / count
    return withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 256) { frequencies in
      frequencies.initialize(repeating: 0)
      for index in 0..<count { frequencies[Int(plane[index &* step])] &+= 1 }
      var entropy = 0.0
      for frequency in frequencies where frequency > 0 {
        let probability = Double(frequency) / Double(count)
        entropy -= probability * log2(probability)
      }
      // Noise of this size has 7.95 bits, and fewer in a smaller sample.
      if count == 4096, entropy > 7.8 { return .none }
      return entropy < 1 ? .repetitions : .frequencies
    }
  }
}

/// The CRC-32 of a block.
func checksum(of block: UnsafeRawBufferPointer) -> UInt32 {
  UInt32(truncatingIfNeeded: crc32_z(0, block.baseAddress?.assumingMemoryBound(to: Bytef.self), block.count))
}
