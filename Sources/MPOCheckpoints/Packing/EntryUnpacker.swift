import Checkpoints

/// Unpacks the blocks of one packed entry, in any order. Not for several threads; several of them for one entry are.
package struct EntryUnpacker: ~Copyable {
  private let table: PackedTable
  private var inflater: Inflater
  private let shuffled: UnsafeMutableRawBufferPointer

  package init(_ table: PackedTable) throws(PackingError) {
    self.table = table
    inflater = try Inflater()
    shuffled = .allocate(byteCount: min(table.layout.blockBytes, table.layout.byteCount), alignment: 64)
  }

  deinit { shuffled.deallocate() }

  /// Unpacks a block.
  ///
  /// - Parameters:
  ///   - stored: The bytes of the table's `storedRange(ofBlock:)`.
  ///   - target: With room for the layout's `range(ofBlock:)`.
  package mutating func unpack(
    block: Int, _ stored: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
  ) throws(PackingError) {
    let planes = table.layout.elementSize
    let count = target.count / planes
    var offset = 0
    for (plane, size) in table.planeSizes(ofBlock: block).enumerated() {
      let bytes = UnsafeRawBufferPointer(rebasing: stored[offset..<offset + Int(size)])
      let result = UnsafeMutableRawBufferPointer(rebasing: shuffled[plane * count..<(plane + 1) * count])
      if Int(size) == count {
        result.copyMemory(from: bytes)
      } else if !inflater.inflate(bytes, into: result) {
        throw .notDeflated(block: block, plane: plane, expected: count)
      }
      offset += Int(size)
    }
    unshuffle(UnsafeRawBufferPointer(rebasing: shuffled[..<target.count]), elementSize: planes, to: target)
    let (found, expected) = (checksum(of: UnsafeRawBufferPointer(target)), table.checksum(ofBlock: block))
    guard found == expected else { throw .checksum(block: block, found: found, expected: expected) }
  }
}
