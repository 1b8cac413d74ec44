import CHDF5
import Files
import Glibc
import Synchronization

/// An HDF5 file being written through libhdf5.
final class HDF5OutputFile: Sendable {
  /// What messages call it.
  let path: String
  /// Opens the file again.
  private let openPath: String
  /// `nil` once it is closed.
  private let identifier: Mutex<hid_t?>

  /// Creates the file at `path`, or empties the one that is there, which may be locked.
  ///
  /// - Parameter model: The file whose user block, sizes, order of links and format version the new one has.
  convenience init(path: String, like model: HDF5File? = nil) throws {
    try self.init(path: path, creating: path, openedAgainBy: path, like: model)
  }

  /// Creates the file `name`, which a descriptor is open for and which may lose its name.
  convenience init(path: String, creating name: String, writtenThrough descriptor: CInt, like model: HDF5File) throws {
    try self.init(path: path, creating: name, openedAgainBy: "/proc/self/fd/\(descriptor)", like: model)
  }

  private init(path: String, creating name: String, openedAgainBy openPath: String, like model: HDF5File?) throws {
    try HDF5Library.load(to: "create it", path)
    self.path = path
    self.openPath = openPath
    func failed(_ reason: String) -> FileError { .io(file: path, operation: "create it", reason: reason) }
    func create(_ creation: hid_t, _ superblockVersion: UInt32) throws -> hid_t {
      let access = try HDF5Identifier(H5Pcreate(mpo_h5p_file_access()), orThrow: failed)
      try checkHDF5(H5Pset_file_locking(access.id, false, true), orThrow: failed)
      let oldest: H5F_libver_t =
        switch superblockVersion {
        case 0, 1: H5F_LIBVER_EARLIEST
        case 2: H5F_LIBVER_V18
        default: H5F_LIBVER_V110
        }
      try checkHDF5(H5Pset_libver_bounds(access.id, oldest, H5F_LIBVER_V110), orThrow: failed)
      let file = H5Fcreate(name, mpo_h5f_truncate(), creation, access.id)
      try checkHDF5(file, orThrow: failed)
      return file
    }
    let file: hid_t
    if let model {
      file = try model.withIdentifier { other in
        var version: UInt32 = 0
        func failed(_ reason: String) -> CheckpointError { model.malformed(nil, "its superblock: \(reason)") }
        try checkHDF5(mpo_h5_superblock_version(other, &version), orThrow: failed)
        let creation = try HDF5Identifier(H5Fget_create_plist(other), orThrow: failed)
        // What the root group keeps in order is not among the properties of the file.
        let root = try HDF5Identifier(H5Gopen2(other, "/", mpo_h5p_default()), orThrow: failed)
        let rootCreation = try HDF5Identifier(H5Gget_create_plist(root.id), orThrow: failed)
        var order: UInt32 = 0
        try checkHDF5(H5Pget_link_creation_order(rootCreation.id, &order), orThrow: failed)
        try checkHDF5(H5Pset_link_creation_order(creation.id, order), orThrow: failed)
        try checkHDF5(H5Pget_attr_creation_order(rootCreation.id, &order), orThrow: failed)
        try checkHDF5(H5Pset_attr_creation_order(creation.id, order), orThrow: failed)
        return try create(creation.id, version)
      }
    } else {
      file = try HDF5Library.withLock {
        let creation = try HDF5Identifier(H5Pcreate(mpo_h5p_file_create()), orThrow: failed)
        try checkHDF5(
          H5Pset_link_creation_order(
            creation.id, mpo_h5p_creation_order_tracked() | mpo_h5p_creation_order_indexed()), orThrow: failed)
        return try create(creation.id, 0)
      }
    }
    identifier = Mutex(file)
  }

  deinit {
    identifier.withLock { identifier in
      if let open = identifier { _ = HDF5Library.withLock { H5Idec_ref(open) } }
      identifier = nil
    }
  }

  /// Runs `body` with the file's identifier as the only one that calls libhdf5.
  func withIdentifier<Result>(_ body: (hid_t) throws -> Result) throws -> Result {
    try HDF5Library.withLock { try withIdentifierHoldingLock(body) }
  }

  /// The same where the lock is held already.
  func withIdentifierHoldingLock<Result>(_ body: (hid_t) throws -> Result) throws -> Result {
    guard let open = identifier.withLock({ $0 }) else { throw failed("write it", "it is closed already") }
    return try body(open)
  }

  /// Writes the first bytes of the file, which libhdf5 has set aside.
  func overwriteStart(with bytes: UnsafeRawBufferPointer) throws {
    let descriptor = try FileError.naming(path, "open it") { () throws(SystemError) in
      try Posix.open(openPath, O_WRONLY)
    }
    defer { Posix.close(descriptor) }
    try FileError.naming(path, "write it") { () throws(SystemError) in try Posix.write(bytes, to: descriptor, at: 0) }
  }

  /// Writes what libhdf5 still holds back, closes the file and waits until it is on the disk.
  func close() throws {
    try withIdentifier { file in
      try checkHDF5(H5Fflush(file, H5F_SCOPE_GLOBAL), orThrow: { failed("write it", $0) })
      identifier.withLock { $0 = nil }
      try checkHDF5(H5Idec_ref(file), orThrow: { failed("close it", $0) })
    }
    try FileError.naming(path, "flush it") { () throws(SystemError) in
      let descriptor = try Posix.open(openPath, O_RDONLY)
      defer { Posix.close(descriptor) }
      try Posix.synchronize(descriptor)
    }
  }

  /// The error for a call of libhdf5; where the system failed under it, its error number says why.
  func failed(_ operation: String, _ reason: String) -> FileError {
    if let range = reason.firstRange(of: "errno = "),
      let code = CInt(reason[range.upperBound...].prefix { $0.isNumber })
    {
      return .system(path, operation, code)
    }
    return .io(file: path, operation: operation, reason: reason)
  }
}
