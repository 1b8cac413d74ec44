import CZlib

/// zlib's compressor, without headers; used again for plane after plane. Not for several threads.
struct Deflater: ~Copyable {
  // zlib wants it to stay where it is.
  private let stream: UnsafeMutablePointer<z_stream>

  init() throws(PackingError) {
    stream = .allocate(capacity: 1)
    stream.initialize(to: z_stream())
    let size = CInt(MemoryLayout<z_stream>.size)
    let status = deflateInit2_(stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size)
    guard status == Z_OK else {
      stream.deallocate()
      throw .outOfMemory
    }
  }

  deinit {
    deflateEnd(stream)
    stream.deallocate()
  }

  /// Deflates `plane` into `target`.
  /// - Returns: the deflated size; nil when `target` is too small for it, or memory for zlib.
  mutating func deflate(_ plane: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
    guard deflateReset(stream) == Z_OK else { return nil }
    stream.pointee.next_in = UnsafeMutablePointer(mutating: plane.baseAddress?.assumingMemoryBound(to: Bytef.self))
    stream.pointee.avail_in = uInt(plane.count)
    stream.pointee.next_out = target.baseAddress?.assumingMemoryBound(to: Bytef.self)
    stream.pointee.avail_out = uInt(target.count)
    guard CZlib.deflate(stream, Z_FINISH) == Z_STREAM_END else { return nil }
    return target.count - Int(stream.pointee.avail_out)
  }
}
