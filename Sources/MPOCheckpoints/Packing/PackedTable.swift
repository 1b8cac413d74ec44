import Checkpoints

/// The table of a packed entry, checked against the manifest.
package struct PackedTable: Sendable {
  package let layout: PackedLayout
  /// Stored sizes of the planes and a checksum, for each block.
  private let values: [UInt32]
  /// Where each block is in the packed entry; the last is the end.
  private let offsets: [Int]

  /// - Parameter bytes: The first `layout.tableBytes` of the packed entry.
  /// - Throws: for a table that contradicts the manifest.
  package init(of entry: PackedEntry, _ bytes: UnsafeRawBufferPointer) throws(PackingError) {
    layout = entry.layout
    guard bytes.count == layout.tableBytes else { throw .sizes(found: bytes.count, expected: entry.bytes) }
    let planes = layout.elementSize
    var values: [UInt32] = []
    var offsets: [Int] = []
    values.reserveCapacity(bytes.count / 4)
    offsets.reserveCapacity(layout.blockCount + 1)
    var offset = layout.tableBytes
    for block in 0..<layout.blockCount {
      offsets.append(offset)
      let limit = layout.range(ofBlock: block).count / planes
      for plane in 0...planes {
        let place = block * layout.rowBytes + plane * 4
        let value = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
        values.append(value)
        guard plane < planes else { break }
        guard value > 0, value <= limit else {
          throw .planeSize(block: block, plane: plane, found: Int(value), limit: limit)
        }
        offset += Int(value)
      }
    }
    guard offset == entry.bytes else { throw .sizes(found: offset, expected: entry.bytes) }
    offsets.append(offset)
    self.values = values
    self.offsets = offsets
  }

  /// Where a block is in the packed entry.
  package func storedRange(ofBlock block: Int) -> Range<Int> { offsets[block]..<offsets[block + 1] }

  /// The stored sizes of a block's planes.
  func planeSizes(ofBlock block: Int) -> ArraySlice<UInt32> {
    values[block * (layout.elementSize + 1)..<(block + 1) * (layout.elementSize + 1) - 1]
  }

  func checksum(ofBlock block: Int) -> UInt32 { values[(block + 1) * (layout.elementSize + 1) - 1] }
}
