import CZlib

/// zlib's decompressor, without headers; used again for plane after plane. Not for several threads.
struct Inflater: ~Copyable {
  private let stream: UnsafeMutablePointer<z_stream>

  init() throws(PackingError) {
    stream = .allocate(capacity: 1)
    stream.initialize(to: z_stream())
    guard inflateInit2_(stream, -MAX_WBITS, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK else {
      stream.deallocate()
      throw .outOfMemory
    }
  }

  deinit {
    inflateEnd(stream)
    stream.deallocate()
  }

  /// Inflates all of `stored` to exactly the bytes that `target` has room for.
  /// - Returns: whether it was that.
  mutating func inflate(_ stored: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Bool {
    guard inflateReset(stream) == Z_OK else { return false }
    stream.pointee.next_in = UnsafeMutablePointer(mutating: stored.baseAddress?.assumingMemoryBound(to: Bytef.self))
    stream.pointee.avail_in = uInt(stored.count)
    stream.pointee.next_out = target.baseAddress?.assumingMemoryBound(to: Bytef.self)
    stream.pointee.avail_out = uInt(target.count)
    return CZlib.inflate(stream, Z_FINISH) == Z_STREAM_END && stream.pointee.avail_in == 0
      && stream.pointee.avail_out == 0
  }
}
