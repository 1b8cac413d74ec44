import CHDF5

/// How the elements of a dataset are stored, as far as it is a tensor.
struct HDF5ElementType: Sendable, Hashable {
  let dtype: DType
  /// Whether the stored bytes are those of a tensor, so that nothing has to be converted.
  let isNative: Bool

  /// Looks at a datatype; `nil` for strings, compounds and whatever else is no tensor.
  ///
  /// - An enumeration of `FALSE` and `TRUE` over one byte is how h5py stores booleans.
  /// - An opaque type of two bytes is how h5py stores `bfloat16` of ml_dtypes; Keras says so in an attribute as well.
  ///
  /// - Parameter dtypeAttribute: The text of the dataset's attribute `dtype`.
  init?(of type: hid_t, dtypeAttribute: String?) {
    let size = H5Tget_size(type)
    switch H5Tget_class(type) {
    case H5T_FLOAT:
      guard let dtype = HDF5ElementType.float(type, size) else { return nil }
      self.dtype = dtype
      isNative = H5Tget_order(type) == H5T_ORDER_LE
    case H5T_INTEGER:
      guard let dtype = HDF5ElementType.integer(type, size) else { return nil }
      self.dtype = dtype
      isNative =
        (size == 1 || H5Tget_order(type) == H5T_ORDER_LE) && H5Tget_precision(type) == size * 8
        && H5Tget_offset(type) == 0
    case H5T_ENUM:
      guard HDF5ElementType.isBoolean(type, size) else { return nil }
      dtype = .bool
      isNative = true
    case H5T_OPAQUE:
      guard size == 2, dtypeAttribute == nil || dtypeAttribute == "bfloat16" else { return nil }
      if dtypeAttribute == nil {
        guard let tag = H5Tget_tag(type) else { return nil }
        defer { H5free_memory(tag) }
        guard ["", "bfloat16"].contains(String(cString: tag)) else { return nil }
      }
      dtype = .bf16
      isNative = true
    default: return nil
    }
  }

  private static func float(_ type: hid_t, _ size: Int) -> DType? {
    var sign = 0
    var exponentPosition = 0
    var exponentSize = 0
    var mantissaPosition = 0
    var mantissaSize = 0
    guard
      H5Tget_fields(type, &sign, &exponentPosition, &exponentSize, &mantissaPosition, &mantissaSize) >= 0,
      H5Tget_norm(type) == H5T_NORM_IMPLIED, mantissaPosition == 0, exponentPosition == mantissaSize,
      sign == mantissaSize + exponentSize, sign == size * 8 - 1,
      [H5T_ORDER_LE, H5T_ORDER_BE].contains(H5Tget_order(type)),
      H5Tget_ebias(type) == 1 << (exponentSize - 1) - 1
    else { return nil }
    switch (size, exponentSize) {
    case (2, 5): return .f16
    case (2, 8): return .bf16
    case (4, 8): return .f32
    case (8, 11): return .f64
    default: return nil
    }
  }

  private static func integer(_ type: hid_t, _ size: Int) -> DType? {
    let isSigned: Bool
    switch H5Tget_sign(type) {
    case H5T_SGN_2: isSigned = true
    case H5T_SGN_NONE: isSigned = false
    default: return nil
    }
    switch size {
    case 1: return isSigned ? .i8 : .u8
    case 2: return isSigned ? .i16 : .u16
    case 4: return isSigned ? .i32 : .u32
    case 8: return isSigned ? .i64 : .u64
    default: return nil
    }
  }

  private static func isBoolean(_ type: hid_t, _ size: Int) -> Bool {
    guard size == 1, H5Tget_nmembers(type) == 2 else { return false }
    for index in 0..<UInt32(2) {
      guard let name = H5Tget_member_name(type, index) else { return false }
      defer { H5free_memory(name) }
      var value: UInt8 = 0xFF
      guard H5Tget_member_value(type, index, &value) >= 0 else { return false }
      switch (String(cString: name), value) {
      case ("FALSE", 0), ("TRUE", 1): continue
      default: return false
      }
    }
    return true
  }

  /// The type of the elements in memory: that of the file, little-endian, in whole bytes.
  func memoryType(of type: hid_t, orThrow failure: (String) -> any Error) throws -> HDF5Identifier {
    let standard: hid_t? =
      switch dtype {
      case .i8: mpo_h5t_i8()
      case .i16: mpo_h5t_i16()
      case .i32: mpo_h5t_i32()
      case .i64: mpo_h5t_i64()
      case .u8: mpo_h5t_u8()
      case .u16: mpo_h5t_u16()
      case .u32: mpo_h5t_u32()
      case .u64: mpo_h5t_u64()
      default: nil
      }
    let copy = try HDF5Identifier(H5Tcopy(standard ?? type), orThrow: failure)
    if standard == nil, !isNative { try checkHDF5(H5Tset_order(copy.id, H5T_ORDER_LE), orThrow: failure) }
    return copy
  }

  /// A new file type for a tensor, as h5py would choose it; `nil` for element types that HDF5 has no name for.
  static func fileType(
    for dtype: DType, orThrow failure: (String) -> any Error
  ) throws -> HDF5Identifier? {
    switch dtype {
    case .i8: return try HDF5Identifier(H5Tcopy(mpo_h5t_i8()), orThrow: failure)
    case .i16: return try HDF5Identifier(H5Tcopy(mpo_h5t_i16()), orThrow: failure)
    case .i32: return try HDF5Identifier(H5Tcopy(mpo_h5t_i32()), orThrow: failure)
    case .i64: return try HDF5Identifier(H5Tcopy(mpo_h5t_i64()), orThrow: failure)
    case .u8: return try HDF5Identifier(H5Tcopy(mpo_h5t_u8()), orThrow: failure)
    case .u16: return try HDF5Identifier(H5Tcopy(mpo_h5t_u16()), orThrow: failure)
    case .u32: return try HDF5Identifier(H5Tcopy(mpo_h5t_u32()), orThrow: failure)
    case .u64: return try HDF5Identifier(H5Tcopy(mpo_h5t_u64()), orThrow: failure)
    case .f32: return try HDF5Identifier(H5Tcopy(mpo_h5t_f32()), orThrow: failure)
    case .f64: return try HDF5Identifier(H5Tcopy(mpo_h5t_f64()), orThrow: failure)
    case .f16:
      let half = try HDF5Identifier(H5Tcopy(mpo_h5t_f32()), orThrow: failure)
      try checkHDF5(H5Tset_fields(half.id, 15, 10, 5, 0, 10), orThrow: failure)
      try checkHDF5(H5Tset_size(half.id, 2), orThrow: failure)
      try checkHDF5(H5Tset_ebias(half.id, 15), orThrow: failure)
      return half
    case .bf16:
      let opaque = try HDF5Identifier(H5Tcreate(H5T_OPAQUE, 2), orThrow: failure)
      try checkHDF5(H5Tset_tag(opaque.id, ""), orThrow: failure)
      return opaque
    case .bool:
      let boolean = try HDF5Identifier(H5Tenum_create(mpo_h5t_i8()), orThrow: failure)
      for (name, value) in [("FALSE", 0), ("TRUE", 1)] as [(String, Int8)] {
        var value = value
        try checkHDF5(H5Tenum_insert(boolean.id, name, &value), orThrow: failure)
      }
      return boolean
    default: return nil
    }
  }
}
