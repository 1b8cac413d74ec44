import CHDF5
import Files
import Glibc

/// An HDF5 file open for reading, through libhdf5 and as a map.
final class HDF5File: @unchecked Sendable {
  /// What messages call it.
  let path: String
  let map: MappedFile
  private let identifier: hid_t

  /// The Keras archive that it was taken out of, and its name there.
  let archive: (path: String, entry: String)?

  /// Opens an HDF5 file, or the weights of a Keras archive, which may be several.
  ///
  /// A file is opened by the descriptor that it is mapped by, so what was checked about it holds for what libhdf5 reads.
  /// It is not locked. Where `HDF5Probe` is in use, it has looked at the file before.
  ///
  /// - Returns: also the index of the shards of an archive.
  static func open(fileOrArchive path: String) throws -> (files: [HDF5File], shards: KerasShards?) {
    let map = try MappedFile(path: path)
    guard try map.byteCount >= 4 && map.withBytes(in: 0..<4, { $0.elementsEqual(ZipSignature.bytes) }) else {
      try HDF5Probe.check(map.descriptor, path: path)
      let identifier = try open("/proc/self/fd/\(map.descriptor)", path: path)
      return ([HDF5File(path: path, map: map, archive: nil, identifier: identifier)], nil)
    }
    return try KerasArchive.weights(of: path) { entry, weights, file in
      let name = entry == KerasArchive.weightsName ? path : path + "/" + entry
      let identifier = try file.withPath { place in
        try HDF5Probe.check(weights.descriptor, path: name)
        return try open(place, path: name)
      }
      return HDF5File(path: name, map: weights, archive: (path, entry), identifier: identifier)
    }
  }

  private init(path: String, map: MappedFile, archive: (path: String, entry: String)?, identifier: hid_t) {
    self.path = path
    self.map = map
    self.archive = archive
    self.identifier = identifier
  }

  /// Opens an HDF5 file that nobody has looked at before.
  init(path: String) throws {
    map = try MappedFile(path: path)
    self.path = path
    archive = nil
    identifier = try HDF5File.open("/proc/self/fd/\(map.descriptor)", path: path)
  }

  private static func open(_ name: String, path: String) throws -> hid_t {
    try HDF5Library.load(to: "read it", path)
    return try HDF5Library.withLock {
      func malformed(_ reason: String) -> CheckpointError {
        .malformed(file: path, tensor: nil, reason: "is not a valid HDF5 file: \(reason)")
      }
      let access = try HDF5Identifier(H5Pcreate(mpo_h5p_file_access()), orThrow: malformed)
      try checkHDF5(H5Pset_file_locking(access.id, false, true), orThrow: malformed)
      let file = H5Fopen(name, mpo_h5f_read_only(), access.id)
      try checkHDF5(file, orThrow: malformed)
      return file
    }
  }

  deinit {
    _ = HDF5Library.withLock { H5Idec_ref(identifier) }
  }

  /// Runs `body` with the file's identifier as the only one that calls libhdf5.
  func withIdentifier<Result>(_ body: (hid_t) throws -> Result) rethrows -> Result {
    try HDF5Library.withLock { try body(identifier) }
  }

  func malformed(_ object: String?, _ reason: String) -> CheckpointError {
    .malformed(file: path, tensor: object, reason: reason)
  }

  func unsupported(_ object: String?, _ reason: String) -> CheckpointError {
    .unsupported(file: path, tensor: object, reason: reason)
  }
}

/// A link of a group.
struct HDF5Link {
  enum Kind {
    case hard
    case symbolic
    case external
    case userDefined
  }

  let name: String
  let kind: Kind
  /// Whether the name was said to be UTF-8 rather than ASCII.
  let isUTF8: Bool

  /// The links of a group, in the order of their creation when the group tracks it, else in the order of their names;
  /// to be called with the lock held.
  static func links(of group: hid_t, path: String, in file: HDF5File) throws -> [HDF5Link] {
    func malformed(_ reason: String) -> CheckpointError {
      file.malformed(nil, "the group '\(escaped("/" + path))' can't be listed: \(reason)")
    }
    let creation = try HDF5Identifier(H5Gget_create_plist(group), orThrow: malformed)
    var order: UInt32 = 0
    try checkHDF5(H5Pget_link_creation_order(creation.id, &order), orThrow: malformed)

    final class Found {
      var links: [HDF5Link] = []
      var hasInvalidName = false
    }
    let found = Found()
    let status = withExtendedLifetime(found) {
      mpo_h5_visit_links(
        group, order & mpo_h5p_creation_order_tracked() != 0 ? 1 : 0,
        { name, type, characterSet, context in
          guard let name, let context else { return -1 }
          let found = Unmanaged<Found>.fromOpaque(context).takeUnretainedValue()
          guard let name = String(validatingCString: name), !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")) else {
            found.hasInvalidName = true
            return -1
          }
          let kind: Kind =
            switch type {
            case CInt(H5L_TYPE_HARD.rawValue): .hard
            case CInt(H5L_TYPE_SOFT.rawValue): .symbolic
            case CInt(H5L_TYPE_EXTERNAL.rawValue): .external
            default: .userDefined
            }
          found.links.append(
            HDF5Link(name: name, kind: kind, isUTF8: characterSet == CInt(H5T_CSET_UTF8.rawValue)))
          return 0
        }, Unmanaged.passUnretained(found).toOpaque())
    }
    if found.hasInvalidName {
      _ = HDF5Library.takeReason()
      throw malformed("it has a link whose name is not UTF-8 text")
    }
    try checkHDF5(status, orThrow: malformed)
    return found.links
  }
}
