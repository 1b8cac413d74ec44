import CHDF5
import Files
import Glibc

/// An HDF5 file: Keras's, TensorFlow's, or any other whose datasets are tensors.
///
/// A tensor's name is the path of its dataset without the leading slash. Datasets of text, compounds and other elements
/// that are no tensor's are left out, as are those without a shape (of a null dataspace). `KerasStructure` says which
/// side of a matrix is the input.
///
/// Nothing outside the file is followed: external links, external storage, virtual datasets and user-defined links are
/// errors, and filters are not loaded from files.
public struct HDF5Checkpoint: DenseCheckpoint {
  /// Of the file, or of the archive.
  public let path: String
  /// In the order of the links, shard after shard.
  public let tensors: [TensorInfo]
  /// Short text attributes of the root group.
  public let metadata: CheckpointMetadata
  /// The file, or the archive.
  public let files: [String]

  /// The file, or the shards of a Keras archive.
  let parts: [HDF5File]
  let datasets: [HDF5Dataset]
  /// For each of `tensors`, the index of its part.
  let places: [Int]
  /// Index into `tensors` and `datasets`, by name.
  private let indices: [TensorName: Int]

  /// `hdf5`, also for an archive.
  public var format: CheckpointFormat { .hdf5 }

  /// Opens the HDF5 file or Keras archive at `path` and looks at all its objects.
  ///
  /// - Throws: `CheckpointError` for what is neither, what is refused, and shards that do not fit their index; `FileError`.
  public init(path: String) throws { try self.init(path: path, isSkeleton: false) }

  /// - Parameter isSkeleton: Whether tensors may have no storage: there is nothing to read then.
  init(path: String, isSkeleton: Bool) throws {
    let (files, shards) = try HDF5File.open(fileOrArchive: path)
    try self.init(path: path, parts: files, isSkeleton: isSkeleton, shards: shards)
  }

  init(path: String, parts: [HDF5File], isSkeleton: Bool, shards: KerasShards? = nil) throws {
    let contents = try parts.map { try HDF5Contents(of: $0, isSkeleton: isSkeleton) }
    let tensors = contents.map { contents in
      contents.datasets.map {
        TensorInfo(
          name: $0.path, dtype: $0.type.dtype, shape: $0.shape,
          orientation: contents.isKeras || KerasStructure.isVariable(path: $0.path) ? .inputOutput : .outputInput)
      }
    }
    try shards?.check(tensors)
    self.parts = parts
    self.path = path
    self.tensors = Array(tensors.joined())
    files = [path]
    metadata = contents.first?.metadata ?? [:]
    datasets = contents.flatMap(\.datasets)
    places = contents.enumerated().flatMap { part, contents in contents.datasets.map { _ in part } }
    indices = Dictionary(zip(self.tensors.map(\.key), self.tensors.indices)) { first, _ in first }
  }

  /// The tensor whose dataset has this path; `nil` where there is none.
  public func tensor(named name: String) -> TensorInfo? { indices[TensorName(name)].map { tensors[$0] } }

  /// Calls `body` with the tensor's elements, in whatever layout the file stores them.
  ///
  /// - Throws: `CheckpointError` for a tensor that is not here, a filter that can't be undone, and damaged chunks.
  public func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try withBytes(of: tensor, in: 0..<tensor.byteCount, body)
  }

  /// The same for a range of its bytes; only the rows of the first axis that it touches are read.
  ///
  /// - Throws: the same errors, and `CheckpointError` for a range outside of the tensor.
  public func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard let index = indices[tensor.key], tensors[index] == tensor else {
      throw CheckpointError.noSuchTensor(tensor, in: path)
    }
    guard range.lowerBound >= 0, range.upperBound <= tensor.byteCount else {
      throw CheckpointError.rangeOutside(tensor, range, of: path)
    }
    let dataset = datasets[index]
    let file = parts[places[index]]
    if let filter = dataset.unknownFilter {
      throw file.unsupported(
        dataset.path, "is stored through the filter \(filter), which this libhdf5 can't undo; rewrite it with gzip")
    }
    if range.isEmpty { return try body(UnsafeRawBufferPointer(start: nil, count: 0)) }
    if case .plain(let offset) = dataset.layout {
      return try file.map.withBytes(in: offset + range.lowerBound..<offset + range.upperBound, body)
    }
    // Whole rows of the first axis.
    let rowBytes = tensor.byteCount / max(tensor.shape.first ?? 1, 1)
    let rows = range.lowerBound / rowBytes..<(range.upperBound + rowBytes - 1) / rowBytes
    let start = range.lowerBound - rows.lowerBound * rowBytes
    return try withRoom(for: rows.count * rowBytes) { buffer in
      switch dataset.layout {
      case .chunks(let grid): try HDF5ChunkReader(file, dataset, grid).read(rows, into: buffer)
      default: try file.read(dataset, rows, into: buffer)
      }
      return try body(UnsafeRawBufferPointer(rebasing: buffer[start..<start + range.count]))
    }
  }

  /// Calls `body` with memory that is given back to the system at the end.
  private func withRoom<Result>(
    for byteCount: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Result
  ) throws -> Result {
    let base = try FileError.naming(path, "take \(byteCount) bytes of memory") { () throws(SystemError) in
      try Posix.mapMemory(byteCount: byteCount)
    }
    defer { Posix.unmap(base, byteCount: byteCount) }
    return try body(UnsafeMutableRawBufferPointer(start: base, count: byteCount))
  }
}

extension HDF5File {
  /// Reads rows of a dataset through libhdf5, converting them to a tensor's elements.
  func read(_ dataset: HDF5Dataset, _ rows: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws {
    func failed(_ reason: String) -> CheckpointError { malformed(dataset.path, "can't be read: \(reason)") }
    try withIdentifier { identifier in
      let object = try HDF5Identifier(H5Dopen2(identifier, dataset.path, mpo_h5p_default()), orThrow: failed)
      let type = try HDF5Identifier(H5Dget_type(object.id), orThrow: failed)
      let memoryType = try dataset.type.memoryType(of: type.id, orThrow: failed)
      if dataset.shape.isEmpty || rows == 0..<dataset.shape[0] {
        try checkHDF5(
          H5Dread(object.id, memoryType.id, mpo_h5s_all(), mpo_h5s_all(), mpo_h5p_default(), buffer.baseAddress),
          orThrow: failed)
        return
      }
      let space = try HDF5Identifier(H5Dget_space(object.id), orThrow: failed)
      var start = dataset.shape.map { _ in hsize_t(0) }
      var count = dataset.shape.map { hsize_t($0) }
      start[0] = hsize_t(rows.lowerBound)
      count[0] = hsize_t(rows.count)
      try checkHDF5(H5Sselect_hyperslab(space.id, H5S_SELECT_SET, start, nil, count, nil), orThrow: failed)
      let memorySpace = try HDF5Identifier(H5Screate_simple(CInt(count.count), count, nil), orThrow: failed)
      try checkHDF5(
        H5Dread(object.id, memoryType.id, memorySpace.id, space.id, mpo_h5p_default(), buffer.baseAddress),
        orThrow: failed)
    }
  }
}
