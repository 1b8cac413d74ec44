import Checkpoints

/// What the elements of a matrix say: that somebody computed it and did not learn it.
enum TensorContents {
  /// Whether a tensor has two different elements, one of which is 0: a mask, whatever its name.
  static func isMask(_ tensor: TensorInfo, in checkpoint: any DenseCheckpoint) throws -> Bool {
    let width = tensor.dtype.bitWidth / 8
    guard tensor.dtype.isDecomposable, tensor.elementCount >= 64 else { return false }
    func isMask(_ bytes: UnsafeRawBufferPointer, _ other: inout [UInt8]?) -> Bool {
      for start in stride(from: 0, to: bytes.count, by: width) {
        let element = bytes[start..<start + width]
        if element.allSatisfy({ $0 == 0 }) { continue }
        if let other { guard element.elementsEqual(other) else { return false } } else { other = Array(element) }
      }
      return true
    }
    var other: [UInt8]?
    guard
      try checkpoint.withBytes(of: tensor, in: 0..<min(tensor.byteCount, 64 * width), { isMask($0, &other) })
    else { return false }
    let blockSize = 1 << 20
    var zeros = 0
    for start in stride(from: 0, to: tensor.byteCount, by: blockSize) {
      let isMask = try checkpoint.withBytes(of: tensor, in: start..<min(start + blockSize, tensor.byteCount)) { bytes in
        guard isMask(bytes, &other) else { return false }
        for place in stride(from: 0, to: bytes.count, by: width)
        where bytes[place..<place + width].allSatisfy({ $0 == 0 }) { zeros += 1 }
        return true
      }
      guard isMask else { return false }
    }
    return other != nil && zeros > 0
  }

  /// Whether the rows of a tensor are sines and cosines of the same angles, as tables of positions have them.
  ///
  /// The pairs stand side by side, in the halves of a row, or (of two axes) in the halves of its halves, so that the squares
  /// of each pair add up to 1. Up to 32 rows are looked at; rows of zeros, for padding, may be among them.
  static func isSinusoidal(_ tensor: TensorInfo, in checkpoint: any DenseCheckpoint) throws -> Bool {
    guard tensor.dtype.isDecomposable, let width = tensor.shape.last, width >= 8, width.isMultiple(of: 2) else {
      return false
    }
    let rowCount = tensor.elementCount / width
    guard rowCount >= 4 else { return false }
    let tolerance = tensor.dtype.bitWidth == 16 ? 2e-2 : 1e-4
    // The pair of each column, for each way in which they may stand.
    func pairs(_ distance: Int) -> [(Int, Int)] {
      (0..<width).filter { $0 % (2 * distance) < distance }.map { ($0, $0 + distance) }
    }
    var layouts = [1, width / 2, width / 4].filter { width.isMultiple(of: 2 * $0) }.map(pairs)
    let rowBytes = width * tensor.dtype.bitWidth / 8
    var rowsWithAngles = 0
    for row in Set((0..<32).map { $0 * (rowCount - 1) / 31 }).sorted() {
      let values: [Double] = try checkpoint.withBytes(of: tensor, in: row * rowBytes..<(row + 1) * rowBytes) { bytes in
        try TensorElements.withDoubles(of: bytes, tensor.dtype) { Array($0) }
      }
      if values.allSatisfy({ $0 == 0 }) { continue }
      // Elements of one magnitude, as of matrices of signs, say nothing of angles.
      if values.allSatisfy({ abs(abs($0) - abs(values[0])) <= tolerance }) { continue }
      rowsWithAngles += 1
      layouts.removeAll { layout in
        !layout.allSatisfy { abs(values[$0] * values[$0] + values[$1] * values[$1] - 1) <= tolerance }
      }
      if layouts.isEmpty { return false }
    }
    return rowsWithAngles >= 3
  }
}
