import TensorNetworks

/// The codes as they are in a shard: each row a little-endian stream of bits that begins at a byte (FORMAT.md, "Encodings").
extension RoundedMatrix {
  var packedCodes: [UInt8] {
    guard integers.bits < 8 else { return codes }
    let rowBytes = integers.rowBytes(columns: columns)
    var packed = [UInt8](repeating: 0, count: rows * rowBytes)
    for row in 0..<rows {
      for column in 0..<columns {
        let bit = column * integers.bits
        let code = UInt16(codes[row * columns + column]) << UInt16(bit % 8)
        packed[row * rowBytes + bit / 8] |= UInt8(truncatingIfNeeded: code)
        if code > 0xFF { packed[row * rowBytes + bit / 8 + 1] |= UInt8(code >> 8) }
      }
    }
    return packed
  }

  /// - Precondition: bytes and scales are as many as the sizes ask for.
  init(integers: IntegerGroups, columns: Int, packedCodes: UnsafeRawBufferPointer, scales: [Float]) {
    let rowBytes = integers.rowBytes(columns: columns)
    let rows = packedCodes.count / max(1, rowBytes)
    let mask = UInt16(integers.largestCode)
    var codes = [UInt8](repeating: 0, count: rows * columns)
    for row in 0..<rows {
      for column in 0..<columns {
        let bit = column * integers.bits
        let place = row * rowBytes + bit / 8
        let next = bit % 8 + integers.bits > 8 ? UInt16(packedCodes[place + 1]) << 8 : 0
        codes[row * columns + column] = UInt8((UInt16(packedCodes[place]) | next) >> UInt16(bit % 8) & mask)
      }
    }
    self.init(integers: integers, rows: rows, columns: columns, codes: codes, scales: scales)
  }
}
