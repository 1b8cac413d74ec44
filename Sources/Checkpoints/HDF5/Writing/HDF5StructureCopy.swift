import CHDF5
import Files

/// Copies everything of an HDF5 file but the elements of its tensors: groups, links, attributes, creation properties,
/// committed datatypes, and datasets that are no tensors with their content.
struct HDF5StructureCopy {
  /// An attribute with object references, which is written when the address of every object is known.
  private struct DeferredAttribute {
    let source: String
    let target: String
    let name: String
  }

  private let source: HDF5File
  private let target: HDF5OutputFile
  /// Paths of the datasets whose elements are left out.
  private let tensors: Set<TensorName>
  /// Where objects of the source are in the target.
  private var paths: [haddr_t: String] = [:]
  private var deferred: [DeferredAttribute] = []

  /// Copies the structure; to be called without the lock.
  static func copy(_ source: HDF5File, leavingOut tensors: Set<TensorName>, to target: HDF5OutputFile) throws {
    var copy = HDF5StructureCopy(source: source, tensors: tensors, target: target)
    try source.withIdentifier { from in
      try target.withIdentifierHoldingLock { to in
        var object = mpo_h5_object()
        try checkHDF5(mpo_h5_object_at(from, "/", &object), orThrow: { source.malformed(nil, $0) })
        copy.paths[object.address] = "/"
        try copy.attributes(of: from, "/", to: to, "/")
        try copy.group(from, to, path: "")
        try copy.writeDeferred(from, to)
      }
    }
  }

  private init(source: HDF5File, tensors: Set<TensorName>, target: HDF5OutputFile) {
    self.source = source
    self.tensors = tensors
    self.target = target
  }

  // MARK: - Objects

  private mutating func group(_ from: hid_t, _ to: hid_t, path: String) throws {
    let place = "/" + path
    let source = source
    let target = target
    let sourceGroup = try HDF5Identifier(
      H5Gopen2(from, place, mpo_h5p_default()),
      orThrow: { source.malformed(nil, "the group '\(escaped(place))': \($0)") })
    for link in try HDF5Link.links(of: sourceGroup.id, path: path, in: source) {
      let name = path.isEmpty ? link.name : path + "/" + link.name
      let place = "/" + name
      func failed(_ reason: String) -> FileError {
        target.failed("copy the object '\(escaped(place))' of '\(escaped(source.path, limit: 4096))'", reason)
      }
      let linkCreation = try HDF5Identifier(H5Pcreate(mpo_h5p_link_create()), orThrow: failed)
      try checkHDF5(
        H5Pset_char_encoding(linkCreation.id, link.isUTF8 ? H5T_CSET_UTF8 : H5T_CSET_ASCII), orThrow: failed)
      switch link.kind {
      case .symbolic:
        let size = mpo_h5_link_value_size(from, place)
        try checkHDF5(size, orThrow: failed)
        var value = [CChar](repeating: 0, count: Int(size) + 1)
        try checkHDF5(H5Lget_val(from, place, &value, Int(size), mpo_h5p_default()), orThrow: failed)
        try checkHDF5(H5Lcreate_soft(value, to, place, linkCreation.id, mpo_h5p_default()), orThrow: failed)
      case .external, .userDefined: throw source.unsupported(nil, "the link '\(escaped(place))' leads out of the file")
      case .hard:
        var object = mpo_h5_object()
        try checkHDF5(mpo_h5_object_at(from, place, &object), orThrow: failed)
        if let earlier = paths[object.address] {
          try checkHDF5(
            H5Lcreate_hard(to, earlier, to, place, linkCreation.id, mpo_h5p_default()), orThrow: failed)
          continue
        }
        paths[object.address] = place
        switch object.type {
        case CInt(H5O_TYPE_GROUP.rawValue):
          try createGroup(from, to, place, linkCreation.id, orThrow: failed)
          try group(from, to, path: name)
        case CInt(H5O_TYPE_DATASET.rawValue) where tensors.contains(TensorName(name)):
          try createTensor(from, to, place, linkCreation.id, orThrow: failed)
        default: try copyWhole(from, to, place, linkCreation.id, object.type, orThrow: failed)
        }
      }
    }
  }

  private mutating func createGroup(
    _ from: hid_t, _ to: hid_t, _ place: String, _ linkCreation: hid_t, orThrow failure: (String) -> any Error
  ) throws {
    let original = try HDF5Identifier(H5Gopen2(from, place, mpo_h5p_default()), orThrow: failure)
    let creation = try HDF5Identifier(H5Gget_create_plist(original.id), orThrow: failure)
    let copy = try HDF5Identifier(
      H5Gcreate2(to, place, linkCreation, creation.id, mpo_h5p_default()), orThrow: failure)
    try attributes(of: original.id, place, to: copy.id, place)
  }

  private mutating func createTensor(
    _ from: hid_t, _ to: hid_t, _ place: String, _ linkCreation: hid_t, orThrow failure: (String) -> any Error
  ) throws {
    let original = try HDF5Identifier(H5Dopen2(from, place, mpo_h5p_default()), orThrow: failure)
    let creation = try HDF5Identifier(H5Dget_create_plist(original.id), orThrow: failure)
    let type = try HDF5Identifier(H5Dget_type(original.id), orThrow: failure)
    let elements = try HDF5Identifier(H5Tcopy(type.id), orThrow: failure)
    let space = try HDF5Identifier(H5Dget_space(original.id), orThrow: failure)
    // Storage that is there from the start would make a skeleton as large as the model.
    var allocation = H5D_ALLOC_TIME_DEFAULT
    try checkHDF5(H5Pget_alloc_time(creation.id, &allocation), orThrow: failure)
    if allocation == H5D_ALLOC_TIME_EARLY, H5Pget_layout(creation.id) != H5D_COMPACT {
      try checkHDF5(H5Pset_alloc_time(creation.id, H5D_ALLOC_TIME_INCR), orThrow: failure)
    }
    let copy = try HDF5Identifier(
      H5Dcreate2(to, place, elements.id, space.id, linkCreation, creation.id, mpo_h5p_default()), orThrow: failure)
    try attributes(of: original.id, place, to: copy.id, place)
  }

  /// Copies a dataset that is no tensor, or a committed datatype, with all that belongs to it.
  private func copyWhole(
    _ from: hid_t, _ to: hid_t, _ place: String, _ linkCreation: hid_t, _ kind: CInt,
    orThrow failure: (String) -> any Error
  ) throws {
    if kind == CInt(H5O_TYPE_DATASET.rawValue) {
      let original = try HDF5Identifier(H5Dopen2(from, place, mpo_h5p_default()), orThrow: failure)
      let type = try HDF5Identifier(H5Dget_type(original.id), orThrow: failure)
      guard H5Tdetect_class(type.id, H5T_REFERENCE) == 0 else {
        throw source.unsupported(
          String(place.dropFirst()), "holds references to objects, which can't be carried over; remove the dataset")
      }
    }
    try checkHDF5(H5Ocopy(from, place, to, place, mpo_h5p_default(), linkCreation), orThrow: failure)
  }

  // MARK: - Attributes

  private mutating func attributes(of original: hid_t, _ source: String, to copy: hid_t, _ target: String) throws {
    let file = self.source
    func failed(_ reason: String) -> CheckpointError {
      file.malformed(nil, "the attributes of '\(escaped(source))': \(reason)")
    }
    for name in try HDF5Attribute.names(of: original, orThrow: failed) {
      let attribute = try HDF5Identifier(H5Aopen(original, name, mpo_h5p_default()), orThrow: failed)
      let type = try HDF5Identifier(H5Aget_type(attribute.id), orThrow: failed)
      if H5Tdetect_class(type.id, H5T_REFERENCE) > 0 {
        deferred.append(DeferredAttribute(source: source, target: target, name: name))
      } else {
        try copyAttribute(name, attribute.id, type.id, to: copy, orThrow: failed) { _, _ in }
      }
    }
  }

  /// Copies one attribute; `adapt` may change its elements (their number and their memory) on the way.
  private func copyAttribute(
    _ name: String, _ attribute: hid_t, _ type: hid_t, to copy: hid_t, orThrow failure: (String) -> any Error,
    _ adapt: (Int, UnsafeMutableRawPointer) throws -> Void
  ) throws {
    let type = try HDF5Identifier(H5Tcopy(type), orThrow: failure)
    let space = try HDF5Identifier(H5Aget_space(attribute), orThrow: failure)
    let creation = try HDF5Identifier(H5Aget_create_plist(attribute), orThrow: failure)
    let new = try HDF5Identifier(
      H5Acreate2(copy, name, type.id, space.id, creation.id, mpo_h5p_default()), orThrow: failure)
    let count = Int(H5Sget_simple_extent_npoints(space.id))
    try checkHDF5(count, orThrow: failure)
    guard count > 0, H5Sget_simple_extent_type(space.id) != H5S_NULL else { return }
    let (byteCount, overflows) = count.multipliedReportingOverflow(by: H5Tget_size(type.id))
    guard !overflows, byteCount <= source.map.byteCount else {
      throw failure("'\(escaped(name))' declares more than the file could hold")
    }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(byteCount, 1), alignment: 16)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    guard let base = buffer.baseAddress else { return }
    try checkHDF5(H5Aread(attribute, type.id, base), orThrow: failure)
    // Texts and lists of variable length are in memory of the library's.
    defer { H5Dvlen_reclaim(type.id, space.id, mpo_h5p_default(), base) }
    try adapt(count, base)
    try checkHDF5(H5Awrite(new.id, type.id, base), orThrow: failure)
  }

  private func writeDeferred(_ from: hid_t, _ to: hid_t) throws {
    for item in deferred {
      func failed(_ reason: String) -> CheckpointError {
        source.malformed(nil, "the attribute '\(escaped(item.name))' of '\(escaped(item.source))': \(reason)")
      }
      let original = try HDF5Identifier(
        H5Aopen_by_name(from, item.source, item.name, mpo_h5p_default(), mpo_h5p_default()), orThrow: failed)
      let type = try HDF5Identifier(H5Aget_type(original.id), orThrow: failed)
      let object = try HDF5Identifier(H5Oopen(to, item.target, mpo_h5p_default()), orThrow: failed)
      try copyAttribute(item.name, original.id, type.id, to: object.id, orThrow: failed) { count, elements in
        try translate(count, elements, type.id, to, orThrow: failed)
      }
    }
  }

  /// Makes references to objects of the source references to their copies.
  private func translate(
    _ count: Int, _ elements: UnsafeMutableRawPointer, _ type: hid_t, _ to: hid_t,
    orThrow failure: (String) -> any Error
  ) throws {
    guard H5Tdetect_class(type, H5T_REFERENCE) > 0 else { return }
    let size = H5Tget_size(type)
    for index in 0..<count {
      let element = elements + index * size
      switch H5Tget_class(type) {
      case H5T_REFERENCE:
        guard H5Tequal(type, mpo_h5t_object_reference()) > 0 else {
          throw failure("it refers to regions of datasets, which can't be carried over; remove it")
        }
        let address = element.loadUnaligned(as: haddr_t.self)
        var object = mpo_h5_object()
        if let path = paths[address] { try checkHDF5(mpo_h5_object_at(to, path, &object), orThrow: failure) }
        element.storeBytes(of: object.address, as: haddr_t.self)
      case H5T_VLEN:
        let list = element.loadUnaligned(as: hvl_t.self)
        guard list.len > 0, let items = list.p else { continue }
        let base = try HDF5Identifier(H5Tget_super(type), orThrow: failure)
        try translate(list.len, items, base.id, to, orThrow: failure)
      case H5T_ARRAY:
        let base = try HDF5Identifier(H5Tget_super(type), orThrow: failure)
        try translate(size / max(H5Tget_size(base.id), 1), element, base.id, to, orThrow: failure)
      case H5T_COMPOUND:
        let members = H5Tget_nmembers(type)
        try checkHDF5(members, orThrow: failure)
        for member in 0..<UInt32(members) {
          let part = try HDF5Identifier(H5Tget_member_type(type, member), orThrow: failure)
          try translate(1, element + H5Tget_member_offset(type, member), part.id, to, orThrow: failure)
        }
      default: throw failure("it holds references in a way that can't be carried over; remove it")
      }
    }
  }
}
