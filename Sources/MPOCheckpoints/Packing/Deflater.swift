import CZlib

/// zlib's compressor, without headers; used again for plane after plane. Not for several threads.
struct Deflater: ~Copyable {
  // zlib wants it to stay where it is.
  private let stream: UnsafeMutablePointer<z_stream>
  private var strategy = Strategy.huffman

  /// What zlib looks for.
  enum Strategy {
    /// Only how often each byte occurs: as good as anything for weights, and fast.
    case huffman
    /// Repetitions too.
    case repetitions
  }

  init() throws(PackingError) {
    stream = .allocate(capacity: 1)
    guard Self.begin(stream, strategy) else {
      stream.deallocate()
      throw .outOfMemory
    }
  }

  private static func begin(_ stream: UnsafeMutablePointer<z_stream>, _ strategy: Strategy) -> Bool {
    stream.initialize(to: z_stream())
    let code = strategy == .huffman ? Z_HUFFMAN_ONLY : Z_DEFAULT_STRATEGY
    let size = CInt(MemoryLayout<z_stream>.size)
    return deflateInit2_(stream, 6, Z_DEFLATED, -MAX_WBITS, 8, code, ZLIB_VERSION, size) == Z_OK
  }

  deinit {
    deflateEnd(stream)
    stream.deallocate()
  }

  /// Deflates `plane` into `target`.
  /// - Returns: the deflated size; nil when `target` is too small for it, or memory for zlib.
  mutating func deflate(
    _ plane: UnsafeRawBufferPointer, _ strategy: Strategy, into target: UnsafeMutableRawBufferPointer
  ) -> Int? {
    if strategy == self.strategy {
      guard deflateReset(stream) == Z_OK else { return nil }
    } else {
      deflateEnd(stream)
      self.strategy = strategy
      guard Self.begin(stream, strategy) else { return nil }
    }
    stream.pointee.next_in = UnsafeMutablePointer(mutating: plane.baseAddress?.assumingMemoryBound(to: Bytef.self))
    stream.pointee.avail_in = uInt(plane.count)
    stream.pointee.next_out = target.baseAddress?.assumingMemoryBound(to: Bytef.self)
    stream.pointee.avail_out = uInt(target.count)
    guard CZlib.deflate(stream, Z_FINISH) == Z_STREAM_END else { return nil }
    return target.count - Int(stream.pointee.avail_out)
  }
}
