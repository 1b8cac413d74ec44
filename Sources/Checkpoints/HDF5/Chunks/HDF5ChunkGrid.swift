import CHDF5

/// The chunks of a dataset and the filters they went through.
struct HDF5ChunkGrid: Sendable {
  /// Sizes of a chunk's axes.
  let chunk: [Int]
  /// Sizes of the dataset's axes.
  let shape: [Int]
  let elementSize: Int
  let filters: [HDF5Filter]

  init(
    _ creation: hid_t, _ filters: [HDF5Filter], _ tensor: TensorInfo, orThrow failure: (String) -> any Error
  ) throws {
    shape = tensor.shape
    elementSize = tensor.dtype.bitWidth / 8
    self.filters = filters
    var sizes = [hsize_t](repeating: 0, count: max(shape.count, 1))
    let rank = H5Pget_chunk(creation, CInt(sizes.count), &sizes)
    try checkHDF5(rank, orThrow: failure)
    guard Int(rank) == shape.count, !shape.isEmpty else {
      throw failure("its chunks do not have as many axes as its shape")
    }
    chunk = try sizes.map {
      guard let size = Int(exactly: $0), size > 0 else { throw failure("its chunks have no elements") }
      return size
    }
    _ = try TensorInfo(name: tensor.name, dtype: tensor.dtype, shape: chunk).checkedByteCount(orThrow: failure)
  }

  var chunkByteCount: Int { chunk.reduce(elementSize, *) }

  /// The number of chunks along an axis.
  private func count(along axis: Int) -> Int { (shape[axis] + chunk[axis] - 1) / chunk[axis] }

  /// The number of chunks that rows of the first axis take part in.
  func count(of rows: Range<Int>) -> Int {
    guard !rows.isEmpty, !shape.contains(0) else { return 0 }
    let first = rows.lowerBound / chunk[0]
    let last = (rows.upperBound - 1) / chunk[0]
    return (1..<shape.count).reduce(last - first + 1) { $0 * count(along: $1) }
  }

  /// The offset, in elements along each axis, of chunk `number` of those that `count(of:)` counts.
  func offset(ofChunk number: Int, of rows: Range<Int>) -> [Int] {
    var offset = [Int](repeating: 0, count: shape.count)
    var rest = number
    for axis in stride(from: shape.count - 1, to: 0, by: -1) {
      let count = count(along: axis)
      offset[axis] = rest % count * chunk[axis]
      rest /= count
    }
    offset[0] = (rows.lowerBound / chunk[0] + rest) * chunk[0]
    return offset
  }

  /// Whether a chunk's bytes are one piece of the rows' bytes, so that they can be decoded into their place.
  func isOnePiece(_ offset: [Int], of rows: Range<Int>) -> Bool {
    let first = chunk.firstIndex { $0 > 1 } ?? chunk.count
    guard offset[0] >= rows.lowerBound, offset[0] + chunk[0] <= rows.upperBound else { return false }
    return (0..<shape.count).allSatisfy { axis in
      axis <= first ? offset[axis] + chunk[axis] <= shape[axis] : chunk[axis] == shape[axis]
    }
  }

  /// Where the element at an offset lies among the bytes of the rows.
  func place(of offset: [Int], in rows: Range<Int>) -> Int {
    var index = offset[0] - rows.lowerBound
    for axis in shape.indices.dropFirst() { index = index * shape[axis] + offset[axis] }
    return index * elementSize
  }

  /// Copies the part of a chunk that lies in the rows (and in the dataset) to its place.
  func scatter(
    _ bytes: UnsafeRawBufferPointer, at offset: [Int], of rows: Range<Int>, to target: UnsafeMutableRawBufferPointer
  ) {
    guard let source = bytes.baseAddress, let base = target.baseAddress else { return }
    let rank = shape.count
    let lower = shape.indices.map { $0 == 0 ? max(offset[0], rows.lowerBound) : offset[$0] }
    let upper = shape.indices.map {
      min(offset[$0] + chunk[$0], $0 == 0 ? rows.upperBound : shape[$0])
    }
    guard zip(lower, upper).allSatisfy({ $0 < $1 }) else { return }
    let run = (upper[rank - 1] - lower[rank - 1]) * elementSize
    var position = lower
    while true {
      var inChunk = 0
      for axis in 0..<rank { inChunk = inChunk * chunk[axis] + position[axis] - offset[axis] }
      (base + place(of: position, in: rows)).copyMemory(from: source + inChunk * elementSize, byteCount: run)
      var axis = rank - 2
      while axis >= 0 {
        position[axis] += 1
        if position[axis] < upper[axis] { break }
        position[axis] = lower[axis]
        axis -= 1
      }
      if axis < 0 { return }
    }
  }
}
