import CHDF5
import Files

/// A dataset that is a tensor: what is known of it without reading its elements.
struct HDF5Dataset: Sendable {
  /// How the elements lie in the file.
  enum Layout: Sendable {
    /// In one piece at an offset of the file, as a tensor's bytes are.
    case plain(offset: Int)
    /// In chunks that this module decodes itself, on all processors.
    case chunks(HDF5ChunkGrid)
    /// In any other way: libhdf5 reads it.
    case other
  }

  let path: String
  let type: HDF5ElementType
  let shape: [Int]
  let layout: Layout
  /// A filter that this libhdf5 can't undo, by its name.
  let unknownFilter: String?

  /// Describes the open dataset; `nil` when it is no tensor. To be called with the lock held.
  ///
  /// - Parameter isSkeleton: Whether the dataset may have no storage although it has elements.
  /// - Throws: `CheckpointError` for external storage, virtual datasets, and a dataset that declares more than the file
  ///   could hold.
  init?(_ dataset: hid_t, path: String, in file: HDF5File, isSkeleton: Bool) throws {
    func malformed(_ reason: String) -> CheckpointError { file.malformed(path, reason) }
    let creation = try HDF5Identifier(H5Dget_create_plist(dataset), orThrow: malformed)
    let layout = H5Pget_layout(creation.id)
    guard layout != H5D_VIRTUAL else {
      throw file.unsupported(path, "is a virtual dataset, whose elements are in other files; copy them into this one")
    }
    let externalFiles = H5Pget_external_count(creation.id)
    try checkHDF5(externalFiles, orThrow: malformed)
    guard externalFiles == 0 else {
      throw file.unsupported(path, "is stored in an external file, which is not followed; copy it into this one")
    }

    let fileType = try HDF5Identifier(H5Dget_type(dataset), orThrow: malformed)
    let dtypeAttribute = try HDF5Attribute.text("dtype", of: dataset, orThrow: malformed)
    guard let type = HDF5ElementType(of: fileType.id, dtypeAttribute: dtypeAttribute) else { return nil }
    let space = try HDF5Identifier(H5Dget_space(dataset), orThrow: malformed)
    switch H5Sget_simple_extent_type(space.id) {
    case H5S_SCALAR: shape = []
    case H5S_SIMPLE: shape = try HDF5Dataset.extent(of: space.id, orThrow: malformed)
    case H5S_NULL: return nil
    default: throw malformed("its shape can't be read: \(HDF5Library.takeReason())")
    }
    self.path = path
    self.type = type
    let info = TensorInfo(name: path, dtype: type.dtype, shape: shape)
    let byteCount = try info.checkedByteCount(orThrow: malformed)

    let filters = try HDF5Filter.filters(of: creation.id, orThrow: malformed)
    unknownFilter = filters.first { $0.kind == .other && H5Zfilter_avail($0.id) <= 0 }?.name
    let stored = Int(clamping: H5Dget_storage_size(dataset))
    switch layout {
    case H5D_CONTIGUOUS:
      let offset = H5Dget_offset(dataset)
      if offset == mpo_haddr_undefined() {
        _ = HDF5Library.takeReason()
        if !isSkeleton { try HDF5Dataset.checkFits(byteCount, stored: 0, ratio: 1, malformed) }
        self.layout = .other
      } else {
        guard let offset = Int(exactly: offset), stored <= file.map.byteCount, offset <= file.map.byteCount - stored
        else {
          throw malformed("its data reach beyond the file of \(file.map.byteCount) bytes; it is cut short or damaged")
        }
        try HDF5Dataset.checkFits(byteCount, stored: stored, ratio: 1, malformed)
        self.layout = type.isNative && stored == byteCount ? .plain(offset: offset) : .other
      }
    case H5D_CHUNKED:
      let canCompress = filters.contains { $0.kind != .shuffle && $0.kind != .fletcher32 }
      if !isSkeleton {
        try HDF5Dataset.checkFits(
          byteCount, stored: min(stored, file.map.byteCount), ratio: canCompress ? HDF5Dataset.maximumRatio : 1,
          malformed)
      }
      let grid = try HDF5ChunkGrid(creation.id, filters, info, orThrow: malformed)
      self.layout = type.isNative && filters.allSatisfy { $0.kind != .other } ? .chunks(grid) : .other
    case H5D_COMPACT:
      try HDF5Dataset.checkFits(byteCount, stored: stored, ratio: 1, malformed)
      self.layout = .other
    default: throw malformed("its storage layout can't be read: \(HDF5Library.takeReason())")
    }
  }

  /// The most that one byte in the file can stand for: what deflate reaches for constant data.
  private static let maximumRatio = 1032
  /// Elements that were never written take no storage; so many bytes of them are no harm.
  private static let unwrittenLimit = 16 << 20

  private static func checkFits(
    _ byteCount: Int, stored: Int, ratio: Int, _ failure: (String) -> any Error
  ) throws {
    let (limit, overflows) = stored.multipliedReportingOverflow(by: ratio)
    guard overflows || byteCount <= limit || byteCount <= unwrittenLimit else {
      throw failure("declares \(byteCount) bytes, more than the \(stored) bytes stored for it could hold")
    }
  }

  private static func extent(of space: hid_t, orThrow failure: (String) -> any Error) throws -> [Int] {
    let rank = H5Sget_simple_extent_ndims(space)
    try checkHDF5(rank, orThrow: failure)
    var sizes = [hsize_t](repeating: 0, count: Int(rank))
    try checkHDF5(H5Sget_simple_extent_dims(space, &sizes, nil), orThrow: failure)
    return try sizes.map {
      guard let size = Int(exactly: $0) else { throw failure("an axis of \($0) elements overflows") }
      return size
    }
  }
}

/// A filter of a dataset's pipeline.
struct HDF5Filter: Sendable {
  enum Kind: Sendable {
    case deflate
    case shuffle
    case fletcher32
    case other
  }

  let id: H5Z_filter_t
  let kind: Kind
  let name: String
  let parameters: [UInt32]

  /// The pipeline of a dataset creation property list, in the order of writing.
  static func filters(of creation: hid_t, orThrow failure: (String) -> any Error) throws -> [HDF5Filter] {
    let count = H5Pget_nfilters(creation)
    try checkHDF5(count, orThrow: failure)
    return try (0..<UInt32(count)).map { index in
      var flags: UInt32 = 0
      var parameterCount = 32
      var parameters = [UInt32](repeating: 0, count: parameterCount)
      var name = [CChar](repeating: 0, count: 64)
      let id = H5Pget_filter2(creation, index, &flags, &parameterCount, &parameters, name.count, &name, nil)
      try checkHDF5(id, orThrow: failure)
      let kind: Kind =
        switch id {
        case 1: .deflate
        case 2: .shuffle
        case 3: .fletcher32
        default: .other
        }
      let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      return HDF5Filter(
        id: id, kind: kind, name: HDF5Filter.name(of: id, text),
        parameters: Array(parameters.prefix(min(parameterCount, parameters.count))))
    }
  }

  /// A filter's name and its registered number.
  private static func name(of id: H5Z_filter_t, _ text: String) -> String {
    let known: [H5Z_filter_t: String] = [
      4: "szip", 5: "nbit", 6: "scale-offset", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4",
      32008: "bitshuffle", 32013: "ZFP", 32015: "Zstandard", 32017: "SZ", 32026: "Blosc2",
    ]
    return "\(known[id] ?? (text.isEmpty ? "without a name" : escaped(text))) (\(id))"
  }
}
