/// The first bytes of all elements, then all second bytes, …, and as they are those that make no whole element.
///
/// - Parameter target: As long as `source`.
package func shuffle(_ source: UnsafeRawBufferPointer, elementSize: Int, to target: UnsafeMutableRawBufferPointer) {
  rearrange(source, elementSize: elementSize, to: target) { from, to, count in
    let result = to.assumingMemoryBound(to: UInt8.self)
    switch elementSize {
    case 2:
      for index in 0..<count {
        let value = UInt16(littleEndian: from.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self))
        result[index] = UInt8(truncatingIfNeeded: value)
        result[count &+ index] = UInt8(truncatingIfNeeded: value &>> 8)
      }
    case 4:
      for index in 0..<count {
        let value = UInt32(littleEndian: from.loadUnaligned(fromByteOffset: index &* 4, as: UInt32.self))
        result[index] = UInt8(truncatingIfNeeded: value)
        result[count &+ index] = UInt8(truncatingIfNeeded: value &>> 8)
        result[2 &* count &+ index] = UInt8(truncatingIfNeeded: value &>> 16)
        result[3 &* count &+ index] = UInt8(truncatingIfNeeded: value &>> 24)
      }
    default:
      let bytes = from.assumingMemoryBound(to: UInt8.self)
      for byte in 0..<elementSize {
        for index in 0..<count { result[byte &* count &+ index] = bytes[index &* elementSize &+ byte] }
      }
    }
  }
}

/// Undoes `shuffle`.
///
/// - Parameter target: As long as `source`.
package func unshuffle(_ source: UnsafeRawBufferPointer, elementSize: Int, to target: UnsafeMutableRawBufferPointer) {
  rearrange(source, elementSize: elementSize, to: target) { from, to, count in
    let bytes = from.assumingMemoryBound(to: UInt8.self)
    switch elementSize {
    case 2:
      for index in 0..<count {
        let value = UInt16(bytes[index]) | UInt16(bytes[count + index]) << 8
        to.storeBytes(of: value.littleEndian, toByteOffset: index * 2, as: UInt16.self)
      }
    case 4:
      for index in 0..<count {
        let low = UInt32(bytes[index]) | UInt32(bytes[count + index]) << 8
        let high = UInt32(bytes[2 * count + index]) << 16 | UInt32(bytes[3 * count + index]) << 24
        to.storeBytes(of: (low | high).littleEndian, toByteOffset: index * 4, as: UInt32.self)
      }
    default:
      let result = to.assumingMemoryBound(to: UInt8.self)
      for byte in 0..<elementSize {
        for index in 0..<count { result[index * elementSize + byte] = bytes[byte * count + index] }
      }
    }
  }
}

/// Calls `body` with the whole elements and their count where there are several bytes of several, and copies the rest.
@inline(__always)
private func rearrange(
  _ source: UnsafeRawBufferPointer, elementSize: Int, to target: UnsafeMutableRawBufferPointer,
  _ body: (_ from: UnsafeRawPointer, _ to: UnsafeMutableRawPointer, _ count: Int) -> Void
) {
  guard let from = source.baseAddress, let to = target.baseAddress else { return }
  let count = elementSize > 1 ? source.count / elementSize : 0
  let whole = count > 1 ? count * elementSize : 0
  if whole > 0 { body(from, to, count) }
  (to + whole).copyMemory(from: from + whole, byteCount: source.count - whole)
}
