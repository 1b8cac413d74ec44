import CHDF5
import Files
import Glibc

/// Attributes that are text.
enum HDF5Attribute {
  /// Longer texts are not taken for a name or a remark.
  private static let maximumLength = 64 << 10

  /// The text of a scalar string attribute, of fixed or variable length, ASCII or UTF-8; `nil` when there is none of
  /// that name, or it is something else. To be called with the lock held.
  static func text(
    _ name: String, of object: hid_t, orThrow failure: (String) -> any Error
  ) throws -> String? {
    let exists = H5Aexists(object, name)
    func failed(_ reason: String) -> any Error {
      failure("its attribute '\(escaped(name))' can't be read: \(reason)")
    }
    try checkHDF5(exists, orThrow: failed)
    guard exists > 0 else { return nil }
    let attribute = try HDF5Identifier(H5Aopen(object, name, mpo_h5p_default()), orThrow: failed)
    let type = try HDF5Identifier(H5Aget_type(attribute.id), orThrow: failed)
    let space = try HDF5Identifier(H5Aget_space(attribute.id), orThrow: failed)
    guard H5Tget_class(type.id) == H5T_STRING, H5Sget_simple_extent_npoints(space.id) == 1 else { return nil }
    let isVariable = H5Tis_variable_str(type.id)
    try checkHDF5(isVariable, orThrow: failed)
    if isVariable > 0 {
      let memoryType = try HDF5Identifier(H5Tcopy(type.id), orThrow: failed)
      var text: UnsafeMutablePointer<CChar>?
      try checkHDF5(H5Aread(attribute.id, memoryType.id, &text), orThrow: failed)
      guard let text else { return "" }
      defer { H5free_memory(text) }
      return strlen(text) <= maximumLength ? String(validatingCString: text) : nil
    }
    let size = H5Tget_size(type.id)
    guard size > 0, size <= maximumLength else { return nil }
    var bytes = [UInt8](repeating: 0, count: size)
    try checkHDF5(H5Aread(attribute.id, type.id, &bytes), orThrow: failed)
    // Whatever the padding: zeros end the text, spaces do for Fortran's.
    var text = bytes.prefix { $0 != 0 }
    if H5Tget_strpad(type.id) == H5T_STR_SPACEPAD { while text.last == 0x20 { text.removeLast() } }
    return String(validating: text, as: UTF8.self)
  }

  /// The scalar string attributes of an object, but long ones.
  static func texts(of object: hid_t, orThrow failure: (String) -> any Error) throws -> CheckpointMetadata {
    var texts: CheckpointMetadata = [:]
    for name in try names(of: object, orThrow: failure) {
      if let text = try text(name, of: object, orThrow: failure) { texts[name] = text }
    }
    return texts
  }

  /// The names of all attributes, in the order of their creation where it is tracked, else of their names.
  static func names(of object: hid_t, orThrow failure: (String) -> any Error) throws -> [String] {
    let count = mpo_h5_attribute_count(object)
    func failed(_ reason: String) -> any Error { failure("its attributes can't be listed: \(reason)") }
    try checkHDF5(count, orThrow: failed)
    var names: [String] = []
    var index = H5_INDEX_CRT_ORDER
    for position in 0..<hsize_t(count) {
      func nameLength() -> Int {
        H5Aget_name_by_idx(object, ".", index, H5_ITER_INC, position, nil, 0, mpo_h5p_default())
      }
      var length = nameLength()
      if length < 0, position == 0 {
        _ = HDF5Library.takeReason()
        index = H5_INDEX_NAME
        length = nameLength()
      }
      try checkHDF5(length, orThrow: failed)
      var name = [CChar](repeating: 0, count: length + 1)
      try checkHDF5(
        H5Aget_name_by_idx(object, ".", index, H5_ITER_INC, position, &name, name.count, mpo_h5p_default()),
        orThrow: failed)
      guard let text = String(validating: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self) else {
        throw failed("the name of one is not UTF-8 text")
      }
      names.append(text)
    }
    return names
  }
}
