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
  public let path: String
  public let tensors: [TensorInfo]
  /// Short text attributes of the root group.
  public let metadata: [String: String]
  public let files: [String]

  let file: HDF5File
  let datasets: [HDF5Dataset]
  /// Index into `tensors` and `datasets`, by name.
  private let indices: [TensorName: Int]

  public var format: CheckpointFormat { .hdf5 }

  /// Opens the HDF5 file or Keras archive at `path` and looks at all its objects.
  public init(path: String) throws {
    try self.init(file: HDF5File(fileOrArchive: path))
  }

  /// - Parameter isSkeleton: Whether tensors may have no storage: there is nothing to read then.
  init(file: HDF5File, isSkeleton: Bool = false) throws {
    let contents = try HDF5Contents(of: file, isSkeleton: isSkeleton)
    self.file = file
    self.path = file.path
    files = [file.path]
    metadata = contents.metadata
    datasets = contents.datasets
    tensors = contents.datasets.map {
      TensorInfo(
        name: $0.path, dtype: $0.type.dtype, shape: $0.shape,
        orientation: contents.isKeras || KerasStructure.isVariable(path: $0.path) ? .inputOutput : .outputInput)
    }
    indices = Dictionary(zip(tensors.map(\.key), tensors.indices)) { first, _ in first }
  }

  public func tensor(named name: String) -> TensorInfo? { indices[TensorName(name)].map { tensors[$0] } }

  public func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try withBytes(of: tensor, in: 0..<tensor.byteCount, body)
  }

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
