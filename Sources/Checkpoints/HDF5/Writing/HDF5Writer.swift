import CHDF5
import Files
import Glibc
import Synchronization

/// An HDF5 file being written: the tensors are there from the start, their elements come in any order and from any
/// thread.
public final class HDF5Writer: DenseCheckpointWriter {
  /// Of the file.
  public let path: String

  private struct Place {
    let tensor: TensorInfo
    let type: HDF5ElementType
    let file: Int
  }
  private struct State {
    /// The tensors that are still to be written.
    var missing: Set<TensorName>
    var isFinished = false
  }

  private let files: [HDF5OutputFile]
  /// The archive that the files go into, when there is one.
  private let archived: ArchivedWeights?
  private let places: [TensorName: Place]
  private let state: Mutex<State>

  /// Recreates the file that a skeleton was made of: its structure, and tensors that are still to be written.
  ///
  /// - Parameters:
  ///   - skeleton: The path of the skeleton that `HDF5Checkpoint.writeSkeleton(to:)` wrote, or of the file itself. Of an
  ///     archive with shards, an HDF5 file gets the tensors of all, without the structure of any.
  ///   - output: The file to write, which is emptied if it is there.
  ///   - tensors: The tensors that will be written, which must be those of the skeleton; not checked when `nil`.
  ///   - asKerasArchive: Whether to write a Keras archive; the skeleton must be one too.
  /// - Throws: `CheckpointError` where the skeleton can't be read or has other tensors, `FileError` where the file can't be
  ///   written.
  public convenience init(
    skeleton: String, output: String, tensors: [TensorInfo]? = nil, asKerasArchive: Bool = false
  ) throws {
    let checkpoint = try HDF5Checkpoint(path: skeleton, isSkeleton: true)
    if let tensors {
      func layout(_ tensor: TensorInfo) -> TensorInfo {
        TensorInfo(name: tensor.name, dtype: tensor.dtype, shape: tensor.shape)
      }
      let expected = Set(tensors.map(layout))
      let found = Set(checkpoint.tensors.map(layout))
      if let other = expected.symmetricDifference(found).map(\.name).min() {
        throw CheckpointError.malformed(
          file: skeleton, tensor: other,
          reason: "the skeleton has no such tensor of this dtype and shape: it belongs to another model")
      }
    }
    if asKerasArchive, checkpoint.archive == nil {
      throw CheckpointError.unsupported(
        file: skeleton, tensor: nil,
        reason: "is not a Keras archive, so no archive can be made from it; write an .h5 file")
    }
    if !asKerasArchive, checkpoint.parts.count > 1 {
      try self.init(creating: output, tensors: checkpoint.tensors, metadata: checkpoint.metadata)
    } else {
      try self.init(recreating: checkpoint, at: output, asKerasArchive: asKerasArchive)
    }
  }

  private init(recreating skeleton: HDF5Checkpoint, at output: String, asKerasArchive: Bool) throws {
    path = output
    archived = asKerasArchive ? try ArchivedWeights(for: output, like: skeleton) : nil
    files = try archived?.createFiles() ?? [HDF5OutputFile(path: output, like: skeleton.parts[0])]
    places = Dictionary(
      skeleton.tensors.indices.map { index in
        let tensor = skeleton.tensors[index]
        return (tensor.key, Place(tensor: tensor, type: skeleton.datasets[index].type, file: skeleton.places[index]))
      }, uniquingKeysWith: { first, _ in first })
    state = Mutex(State(missing: Set(skeleton.tensors.filter { $0.byteCount > 0 }.map(\.key))))
    try skeleton.copyStructure(to: files)
  }

  /// Creates a new file: a dataset for each tensor, in the order given, and groups where their names have slashes.
  ///
  /// - Parameters:
  ///   - path: The file to write, which is emptied if it is there.
  ///   - tensors: The tensors; each becomes a dataset.
  ///   - metadata: Text attributes of the root group.
  /// - Throws: `CheckpointError` for names and element types that HDF5 can't hold.
  public init(creating path: String, tensors: [TensorInfo], metadata: CheckpointMetadata = [:]) throws {
    let file = try HDF5OutputFile(path: path)
    self.path = path
    files = [file]
    archived = nil
    var places: [TensorName: Place] = [:]
    try file.withIdentifier { identifier in
      for (name, text) in metadata.sorted {
        try file.writeAttribute(name, text, of: identifier)
      }
      var groups: Set<TensorName> = []
      for tensor in tensors {
        guard places[tensor.key] == nil else {
          throw CheckpointError.malformed(file: path, tensor: tensor.name, reason: "it is declared twice")
        }
        let type = try file.createDataset(for: tensor, in: identifier, &groups)
        places[tensor.key] = Place(tensor: tensor, type: type, file: 0)
      }
    }
    self.places = places
    state = Mutex(State(missing: Set(tensors.filter { $0.byteCount > 0 }.map(\.key))))
  }

  public func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws {
    func malformed(_ reason: String) -> CheckpointError { .malformed(file: path, tensor: name, reason: reason) }
    guard let place = places[TensorName(name)] else { throw malformed("it is written but was not declared") }
    guard bytes.count == place.tensor.byteCount else {
      throw malformed("\(bytes.count) bytes are written, \(place.tensor.byteCount) were declared")
    }
    if bytes.isEmpty { return }
    try state.withLock { state in
      guard !state.isFinished, state.missing.remove(TensorName(name)) != nil else {
        throw malformed("it is written twice, or after the end")
      }
    }
    do {
      try files[place.file].write(bytes, to: name, place.type)
    } catch {
      state.withLock { _ = $0.missing.insert(TensorName(name)) }
      throw error
    }
  }

  public func finish() throws {
    let missing = state.withLock { state -> TensorName? in
      let missing = state.missing.min()
      if missing == nil { state.isFinished = true }
      return missing
    }
    if let missing {
      throw CheckpointError.malformed(file: path, tensor: missing.text, reason: "it was declared but not written")
    }
    for file in files { try file.close() }
    try archived?.finish()
  }
}

extension HDF5OutputFile {
  /// Writes the elements of a dataset, converting them to how it stores them.
  fileprivate func write(_ bytes: UnsafeRawBufferPointer, to name: String, _ type: HDF5ElementType) throws {
    func failed(_ reason: String) -> FileError { self.failed("write the tensor '\(escaped(name))'", reason) }
    try withIdentifier { identifier in
      let dataset = try HDF5Identifier(H5Dopen2(identifier, name, mpo_h5p_default()), orThrow: failed)
      let fileType = try HDF5Identifier(H5Dget_type(dataset.id), orThrow: failed)
      let memoryType = try type.memoryType(of: fileType.id, orThrow: failed)
      try checkHDF5(
        H5Dwrite(
          dataset.id, memoryType.id, mpo_h5s_all(), mpo_h5s_all(), mpo_h5p_default(), bytes.baseAddress),
        orThrow: failed)
    }
  }

  /// Creates the dataset of a tensor and the groups around it; to be called with the lock held.
  fileprivate func createDataset(
    for tensor: TensorInfo, in identifier: hid_t, _ groups: inout Set<TensorName>
  ) throws -> HDF5ElementType {
    func malformed(_ reason: String) -> CheckpointError { .malformed(file: path, tensor: tensor.name, reason: reason) }
    func failed(_ reason: String) -> CheckpointError { malformed("can't become an HDF5 dataset: \(reason)") }
    _ = try tensor.checkedByteCount(orThrow: malformed)
    let parts = tensor.name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
      .map { String(decoding: $0, as: UTF8.self) }
    guard parts.allSatisfy({ !$0.isEmpty && $0 != "." }), !tensor.name.utf8.contains(0) else {
      throw malformed("this name can't be the path of an HDF5 dataset")
    }
    guard let fileType = try HDF5ElementType.fileType(for: tensor.dtype, orThrow: failed),
      let type = HDF5ElementType(of: fileType.id, dtypeAttribute: nil)
    else {
      throw CheckpointError.unsupported(
        file: path, tensor: tensor.name, reason: "HDF5 has no element type for \(tensor.dtype.rawValue)")
    }
    let linkCreation = try HDF5Identifier(H5Pcreate(mpo_h5p_link_create()), orThrow: failed)
    try checkHDF5(H5Pset_char_encoding(linkCreation.id, H5T_CSET_UTF8), orThrow: failed)
    for depth in 1..<max(parts.count, 1) {
      let group = parts[..<depth].joined(separator: "/")
      guard groups.insert(TensorName(group)).inserted else { continue }
      let creation = try HDF5Identifier(H5Pcreate(mpo_h5p_group_create()), orThrow: failed)
      try checkHDF5(
        H5Pset_link_creation_order(
          creation.id, mpo_h5p_creation_order_tracked() | mpo_h5p_creation_order_indexed()), orThrow: failed)
      _ = try HDF5Identifier(
        H5Gcreate2(identifier, group, linkCreation.id, creation.id, mpo_h5p_default()), orThrow: failed)
    }
    let sizes = tensor.shape.map { hsize_t($0) }
    let space = try HDF5Identifier(
      sizes.isEmpty ? H5Screate(H5S_SCALAR) : H5Screate_simple(CInt(clamping: sizes.count), sizes, nil),
      orThrow: failed)
    let dataset = try HDF5Identifier(
      H5Dcreate2(
        identifier, tensor.name, fileType.id, space.id, linkCreation.id, mpo_h5p_default(), mpo_h5p_default()),
      orThrow: failed)
    // Keras reads the opaque elements as what they are by this.
    if tensor.dtype == .bf16 { try writeAttribute("dtype", "bfloat16", of: dataset.id) }
    return type
  }

  /// Adds a text attribute of variable length; to be called with the lock held.
  fileprivate func writeAttribute(_ name: String, _ text: String, of object: hid_t) throws {
    func failed(_ reason: String) -> FileError { self.failed("write the attribute '\(escaped(name))'", reason) }
    guard !text.utf8.contains(0), !name.isEmpty, !name.utf8.contains(0) else {
      throw failed("its text contains a zero byte, or it has no name")
    }
    let type = try HDF5Identifier(H5Tcopy(mpo_h5t_c_string()), orThrow: failed)
    try checkHDF5(H5Tset_size(type.id, mpo_h5t_variable()), orThrow: failed)
    try checkHDF5(H5Tset_cset(type.id, H5T_CSET_UTF8), orThrow: failed)
    let space = try HDF5Identifier(H5Screate(H5S_SCALAR), orThrow: failed)
    let attribute = try HDF5Identifier(
      H5Acreate2(object, name, type.id, space.id, mpo_h5p_default(), mpo_h5p_default()), orThrow: failed)
    try text.withCString { text in
      var pointer: UnsafePointer<CChar>? = text
      try checkHDF5(H5Awrite(attribute.id, type.id, &pointer), orThrow: failed)
    }
  }

  /// Copies what stands before the HDF5 data; libhdf5 leaves it alone.
  fileprivate func copyUserBlock(of source: HDF5File) throws {
    let byteCount: Int = try source.withIdentifier { identifier in
      func failed(_ reason: String) -> CheckpointError { source.malformed(nil, "its superblock: \(reason)") }
      let creation = try HDF5Identifier(H5Fget_create_plist(identifier), orThrow: failed)
      var size: hsize_t = 0
      try checkHDF5(H5Pget_userblock(creation.id, &size), orThrow: failed)
      return Int(clamping: size)
    }
    guard byteCount > 0 else { return }
    try source.map.withBytes(in: 0..<byteCount) { try overwriteStart(with: $0) }
  }
}

extension HDF5Checkpoint {
  /// The archive whose weights these are.
  fileprivate var archive: String? { parts.first?.archive?.path }

  /// The name that the skeleton of this checkpoint has in a folder; its ending says what it is.
  public var skeletonName: String? { archive == nil ? "skeleton.h5" : "skeleton.keras" }

  /// Writes everything of this file but the elements of its tensors, from which `HDF5Writer` recreates it: an HDF5 file,
  /// or a Keras archive where this is one.
  ///
  /// - Parameter path: The file to write, which is emptied if it is there.
  /// - Throws: `CheckpointError` for what can't be carried over, `FileError` where the file can't be written.
  public func writeSkeleton(to path: String) throws {
    let archived = archive == nil ? nil : try ArchivedWeights(for: path, like: self)
    let outputs = try archived?.createFiles() ?? [HDF5OutputFile(path: path, like: parts[0])]
    try copyStructure(to: outputs)
    for output in outputs { try output.close() }
    try archived?.finish()
  }

  /// Copies all but the elements of tensors, each part to its own file.
  fileprivate func copyStructure(to outputs: [HDF5OutputFile]) throws {
    for (number, (part, output)) in zip(parts, outputs).enumerated() {
      let own = tensors.indices.filter { places[$0] == number }.map { tensors[$0].key }
      try HDF5StructureCopy.copy(part, leavingOut: Set(own), to: output)
      try output.copyUserBlock(of: part)
    }
  }
}

/// The weights of a Keras archive while they are being written: files without a name beside the archive.
private final class ArchivedWeights: Sendable {
  private let files: [TemporaryFile]
  private let archive: String
  private let model: HDF5Checkpoint

  /// - Parameter model: The archive whose other entries are taken over.
  init(for archive: String, like model: HDF5Checkpoint) throws {
    var files: [TemporaryFile] = []
    do {
      for _ in model.parts { files.append(try TemporaryFile(in: parentFolder(of: archive))) }
    } catch {
      for file in files { file.withPath { _ in Posix.close(file.descriptor) } }
      throw error
    }
    self.files = files
    self.archive = archive
    self.model = model
  }

  deinit { for file in files { Posix.close(file.descriptor) } }

  /// Begins to write the weights; to be called once.
  func createFiles() throws -> [HDF5OutputFile] {
    let results = zip(files, model.parts).map { file, part in
      Result {
        try file.withPath {
          try HDF5OutputFile(path: archive, creating: $0, writtenThrough: file.descriptor, like: part)
        }
      }
    }
    return try results.map { try $0.get() }
  }

  func finish() throws {
    var weights: [TensorName: CInt] = [:]
    for (file, part) in zip(files, model.parts) {
      if let entry = part.archive?.entry { weights[TensorName(entry)] = file.descriptor }
    }
    try KerasArchive.write(to: archive, like: model.path, weights: weights)
  }
}
