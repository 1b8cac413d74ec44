import CZlib

/// Undoes the filters of chunks: deflate, shuffle and fletcher32. One per thread: it keeps its buffers.
struct HDF5ChunkDecoder: ~Copyable {
  private var stored: UnsafeMutableRawBufferPointer
  private var buffers: [UnsafeMutableRawBufferPointer]
  private let filters: [HDF5Filter]
  private let elementSize: Int
  private let chunkByteCount: Int

  init(_ grid: HDF5ChunkGrid) {
    filters = grid.filters
    elementSize = grid.elementSize
    chunkByteCount = grid.chunkByteCount
    stored = .allocate(byteCount: 0, alignment: 64)
    buffers = [.allocate(byteCount: 0, alignment: 64), .allocate(byteCount: 0, alignment: 64)]
  }

  deinit {
    stored.deallocate()
    for buffer in buffers { buffer.deallocate() }
  }

  /// Room for a chunk as it is stored.
  mutating func room(for byteCount: Int) -> UnsafeMutableRawBufferPointer {
    HDF5ChunkDecoder.grow(&stored, to: byteCount)
    return UnsafeMutableRawBufferPointer(rebasing: stored[..<byteCount])
  }

  private static func grow(_ buffer: inout UnsafeMutableRawBufferPointer, to byteCount: Int) {
    guard buffer.count < byteCount else { return }
    buffer.deallocate()
    buffer = .allocate(byteCount: byteCount, alignment: 64)
  }

  /// Undoes the filters of the first `byteCount` bytes of the room.
  ///
  /// - Parameters:
  ///   - mask: A bit for each filter that was left out.
  ///   - target: Where the chunk may be decoded to at once; `nil` to have it in a buffer of the decoder's.
  /// - Returns: the chunk, in `target` or in a buffer that is valid until the next call.
  mutating func decode(
    byteCount: Int, mask: UInt32, into target: UnsafeMutableRawBufferPointer?,
    orThrow failure: (String) -> any Error
  ) throws -> UnsafeRawBufferPointer {
    var current = UnsafeRawBufferPointer(rebasing: stored[..<byteCount])
    let steps = filters.indices.reversed().filter { mask & (1 << UInt32($0)) == 0 }
    // Checksums make what is inflated longer than the chunk.
    let room = chunkByteCount + 4 * steps.count
    var next = 0
    for (number, index) in steps.enumerated() {
      let last = number == steps.count - 1
      func output(_ count: Int) -> UnsafeMutableRawBufferPointer {
        if last, let target, target.count == count { return target }
        HDF5ChunkDecoder.grow(&buffers[next], to: room)
        defer { next = 1 - next }
        return UnsafeMutableRawBufferPointer(rebasing: buffers[next][..<count])
      }
      switch filters[index].kind {
      case .fletcher32:
        guard current.count >= 4 else { throw failure("a chunk is too short for its checksum") }
        let data = UnsafeRawBufferPointer(rebasing: current[..<(current.count - 4)])
        let found = UInt32(littleEndian: current.loadUnaligned(fromByteOffset: data.count, as: UInt32.self))
        guard found == fletcher32(data) else { throw failure("the checksum of a chunk does not match: it is damaged") }
        current = data
      case .shuffle:
        guard current.count <= room else {
          throw failure("a chunk has \(current.count) bytes instead of \(chunkByteCount): it is damaged")
        }
        let result = output(current.count)
        unshuffle(current, elementSize: filters[index].parameters.first.map { Int($0) } ?? elementSize, to: result)
        current = UnsafeRawBufferPointer(result)
      case .deflate:
        let result = output(last ? chunkByteCount : room)
        var length = uLongf(result.count)
        let status = uncompress(
          result.baseAddress?.assumingMemoryBound(to: Bytef.self), &length,
          current.baseAddress?.assumingMemoryBound(to: Bytef.self), uLong(current.count))
        guard status == Z_OK else { throw failure("a chunk can't be inflated: it is damaged") }
        current = UnsafeRawBufferPointer(rebasing: result[..<Int(length)])
      case .other: throw failure("the filter \(filters[index].name) can't be undone")
      }
    }
    guard current.count == chunkByteCount else {
      throw failure("a chunk has \(current.count) bytes instead of \(chunkByteCount): it is damaged")
    }
    return current
  }
}

/// The checksum that HDF5 stores: Fletcher's with 32 bits, over big-endian words of 16.
func fletcher32(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
  var first: UInt32 = 0
  var second: UInt32 = 0
  let words = bytes.count / 2
  var word = 0
  while word < words {
    // As many as can be added up without an overflow.
    let end = min(word + 360, words)
    while word < end {
      first &+= UInt32(bytes[word * 2]) << 8 | UInt32(bytes[word * 2 + 1])
      second &+= first
      word += 1
    }
    first = first & 0xFFFF + first >> 16
    second = second & 0xFFFF + second >> 16
  }
  if !bytes.count.isMultiple(of: 2) {
    first &+= UInt32(bytes[bytes.count - 1]) << 8
    second &+= first
    first = first & 0xFFFF + first >> 16
    second = second & 0xFFFF + second >> 16
  }
  first = first & 0xFFFF + first >> 16
  second = second & 0xFFFF + second >> 16
  return second << 16 | first
}
