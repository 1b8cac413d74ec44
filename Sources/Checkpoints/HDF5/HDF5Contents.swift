import CHDF5
import Files

/// What is in an HDF5 file: every tensor, once, in the order of the links.
struct HDF5Contents: Sendable {
  let datasets: [HDF5Dataset]
  /// Short text attributes of the root group.
  let metadata: CheckpointMetadata
  /// Whether the file has the structure that Keras or TensorFlow gives it.
  let isKeras: Bool

  /// Deeper groups are taken for an attack.
  private static let maximumDepth = 128

  /// Walks the file. Objects with several hard links are taken at the first; soft links lead to nothing new and are not
  /// followed.
  ///
  /// - Throws: `CheckpointError` for external and user-defined links, and for what can't be read.
  init(of file: HDF5File, isSkeleton: Bool) throws {
    var walk = Walk(file: file, isSkeleton: isSkeleton)
    var metadata: CheckpointMetadata = [:]
    var isKeras = false
    try file.withIdentifier { identifier in
      func malformed(_ reason: String) -> CheckpointError { file.malformed(nil, "its root group: \(reason)") }
      let root = try HDF5Identifier(H5Gopen2(identifier, "/", mpo_h5p_default()), orThrow: malformed)
      metadata = try HDF5Attribute.texts(of: root.id, orThrow: malformed)
      isKeras = try KerasStructure.isPresent(attributes: HDF5Attribute.names(of: root.id, orThrow: malformed))
      var object = mpo_h5_object()
      try checkHDF5(mpo_h5_object_at(identifier, "/", &object), orThrow: malformed)
      walk.seen.insert(object.address)
      try walk.group(root.id, path: "", depth: 0)
    }
    datasets = walk.datasets
    self.metadata = metadata
    self.isKeras = isKeras || KerasStructure.isPresent(paths: datasets.lazy.map(\.path))
  }

  private struct Walk {
    let file: HDF5File
    let isSkeleton: Bool
    var datasets: [HDF5Dataset] = []
    var seen: Set<haddr_t> = []

    init(file: HDF5File, isSkeleton: Bool) {
      self.file = file
      self.isSkeleton = isSkeleton
    }

    mutating func group(_ group: hid_t, path: String, depth: Int) throws {
      guard depth <= HDF5Contents.maximumDepth else {
        throw file.malformed(nil, "its groups are nested more than \(HDF5Contents.maximumDepth) deep")
      }
      for link in try HDF5Link.links(of: group, path: path, in: file) {
        let name = path.isEmpty ? link.name : path + "/" + link.name
        func malformed(_ reason: String) -> CheckpointError {
          file.malformed(nil, "the object '\(escaped("/" + name))' can't be read: \(reason)")
        }
        switch link.kind {
        case .symbolic: continue
        case .external:
          throw file.unsupported(
            nil, "the link '\(escaped("/" + name))' leads to another file, which is not followed; copy the object here")
        case .userDefined:
          throw file.unsupported(nil, "the link '\(escaped("/" + name))' is of a user-defined kind, which is refused")
        case .hard: break
        }
        var object = mpo_h5_object()
        try checkHDF5(mpo_h5_object_at(group, link.name, &object), orThrow: malformed)
        guard seen.insert(object.address).inserted else { continue }
        switch object.type {
        case CInt(H5O_TYPE_GROUP.rawValue):
          let child = try HDF5Identifier(H5Gopen2(group, link.name, mpo_h5p_default()), orThrow: malformed)
          try self.group(child.id, path: name, depth: depth + 1)
        case CInt(H5O_TYPE_DATASET.rawValue):
          let dataset = try HDF5Identifier(H5Dopen2(group, link.name, mpo_h5p_default()), orThrow: malformed)
          if let found = try HDF5Dataset(dataset.id, path: name, in: file, isSkeleton: isSkeleton) {
            datasets.append(found)
          }
        default: continue
        }
      }
    }
  }
}
