import Checkpoints
import Files
import FoundationEssentials
import LinearAlgebra
import TensorNetworks

/// An MPO checkpoint open for reading. Opening it checks everything FORMAT.md asks for but the checksums of the shards.
public struct MPOCheckpoint: Sendable {
  /// The folder.
  public let path: String
  /// Its manifest.
  public let manifest: CheckpointManifest
  private let shards: any DenseCheckpoint
  private let packed: [TensorName: PackedEntry]
  /// What the folder was when it was opened.
  private let identity: FileStatus

  /// Whether a folder with a manifest of this format is at `path`.
  public static func isPresent(at path: String) -> Bool {
    isMPOManifest(at: path + "/" + CheckpointManifest.fileName)
  }

  /// Opens the checkpoint; when its folder is replaced at the same time, the old one or the new one.
  /// - Throws: `MPOCheckpointError`, and `CheckpointError` for what is wrong with a shard.
  public init(path: String) throws {
    for _ in 0..<10 {
      let before = try? FileStatus(at: path)
      do {
        self = try MPOCheckpoint(opening: path)
        return
      } catch {
        guard let before, let now = try? FileStatus(at: path), !now.isSame(as: before) else { throw error }
      }
    }
    self = try MPOCheckpoint(opening: path)
  }

  private init(opening path: String) throws {
    guard let status = try FileStatus(at: path) else {
      throw MPOCheckpointError.notAnMPOCheckpoint(path: path, reason: "no such folder")
    }
    guard status.kind == .folder, try FileStatus(at: path + "/" + CheckpointManifest.fileName) != nil else {
      throw MPOCheckpointError.notAnMPOCheckpoint(
        path: path, reason: "is not an MPO checkpoint (a folder with a manifest.json); make one with 'mpo convert'")
    }
    self.path = path
    identity = status
    let manifest = try Self.readManifest(path + "/" + CheckpointManifest.fileName)
    self.manifest = manifest
    try Self.checkFiles(of: manifest, in: path)

    if let (name, reason) = manifest.contents.problem {
      throw MPOCheckpointError.tensor(path: path, tensor: name, reason: reason)
    }
    if let part = manifest.part, !part.isConsistent(tensors: manifest.contents.tensors.count) {
      throw MPOCheckpointError.manifest(
        path: path + "/" + CheckpointManifest.fileName, reason: "has an invalid member 'part'")
    }

    if let reason = Self.problem(of: manifest) {
      throw MPOCheckpointError.manifest(path: path + "/" + CheckpointManifest.fileName, reason: reason)
    }
    let listed = Set(manifest.companions.map { TensorName($0.file) })
    if let skeleton = manifest.source?.skeletons.first(where: { !listed.contains(TensorName($0)) }) {
      throw MPOCheckpointError.manifest(
        path: path + "/" + CheckpointManifest.fileName, reason: "does not list its skeleton '\(escaped(skeleton))'")
    }
    guard let first = manifest.shards.first else {
      throw MPOCheckpointError.manifest(path: path + "/" + CheckpointManifest.fileName, reason: "lists no shards")
    }
    let isSharded = manifest.shards.count > 1
    let entryPoint = isSharded ? MPOCheckpointWriter.indexName : first.file
    shards = try openDenseCheckpoint(at: path + "/" + entryPoint)
    let found = Set(shards.files.map { TensorName(Self.name(of: $0)) })
    guard found == Set(manifest.shards.map { TensorName($0.file) }) else {
      throw MPOCheckpointError.manifest(
        path: path + "/" + CheckpointManifest.fileName, reason: "lists other shards than \(entryPoint) does")
    }
    try Self.checkEntries(of: manifest.contents, shards.tensors, path)
    // Files that were opened by name may be those of another checkpoint that has taken its place.
    guard try FileStatus(at: path)?.isSame(as: status) == true else { throw Self.replaced(path) }
    packed = Dictionary(
      manifest.contents.arrays.flatMap(\.packed).map { (TensorName($0.name), $0) },
      uniquingKeysWith: { first, _ in first })
  }

  /// What is wrong with the components of the source; nil where nothing is.
  private static func problem(of manifest: CheckpointManifest) -> String? {
    guard let components = manifest.source?.components else { return nil }
    var start = 0
    for component in components {
      let parts = component.file.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
      guard parts.allSatisfy({ !$0.isEmpty && !$0.elementsEqual(".".utf8) && !$0.elementsEqual("..".utf8) }),
        !component.file.utf8.contains(0)
      else { return "names a component outside of its folder: '\(escaped(component.file))'" }
      if manifest.part != nil { continue }
      guard component.tensorCount >= 0, component.tensorCount <= manifest.contents.tensors.count - start else {
        return "gives its components other tensors than it has"
      }
      for tensor in manifest.contents.tensors[start..<start + component.tensorCount]
      where !tensor.name.utf8.starts(with: component.prefix.utf8) {
        return "gives the component '\(escaped(component.file))' the tensor '\(escaped(tensor.name))', whose name does "
          + "not begin with '\(escaped(component.prefix))'"
      }
      start += component.tensorCount
    }
    guard manifest.part != nil || start == manifest.contents.tensors.count else {
      return "gives its components other tensors than it has"
    }
    return components.isEmpty ? "has a source without components" : nil
  }

  private static func replaced(_ path: String) -> MPOCheckpointError {
    .file(path: path, reason: "was replaced while the command read it; run the command again")
  }

  /// - Throws: `MPOCheckpointError.file` when another checkpoint has taken the place of this one since it was opened:
  ///   files that are opened by name are of that one. (The tensors are not: their files are open.)
  public func checkNotReplaced() throws {
    guard let now = try FileStatus(at: path), now.isSame(as: identity) else { throw Self.replaced(path) }
  }

  private static func name(of file: String) -> String { file.split(separator: "/").last.map(String.init) ?? file }

  private static func readManifest(_ path: String) throws -> CheckpointManifest {
    let file = try MappedFile(path: path)
    guard file.byteCount <= ManifestFile.maximumByteCount else {
      throw MPOCheckpointError.manifest(path: path, reason: "is larger than \(ManifestFile.maximumByteCount) bytes")
    }
    return try file.withBytes(in: 0..<file.byteCount) { try ManifestFile.decode(Data($0), path: path) }
  }

  /// Every file listed is a regular file inside the folder and of its size.
  private static func checkFiles(of manifest: CheckpointManifest, in path: String) throws {
    for file in manifest.shards + manifest.companions { try check(file, in: path) }
  }

  private static func check(_ file: FileFingerprint, in path: String) throws {
    do {
      let parts = file.file.split(separator: "/", omittingEmptySubsequences: false)
      guard !parts.isEmpty, parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." }), !file.file.contains("\0")
      else {
        throw MPOCheckpointError.manifest(
          path: path + "/" + CheckpointManifest.fileName,
          reason: "names a file outside the folder: '\(escaped(file.file))'")
      }
      var prefix = path
      for (index, part) in parts.enumerated() {
        prefix += "/" + part
        let expected: FileStatus.Kind = index == parts.count - 1 ? .file : .folder
        guard let status = try FileStatus(at: prefix, followingLinks: false) else {
          throw MPOCheckpointError.file(path: prefix, reason: "is missing; copy the whole folder or convert again")
        }
        guard status.kind == expected else {
          throw MPOCheckpointError.file(path: prefix, reason: "is \(status.kind.rawValue), not \(expected.rawValue)")
        }
        guard expected == .folder || status.byteCount == file.bytes else {
          throw MPOCheckpointError.file(
            path: prefix,
            reason: "has \(status.byteCount) bytes, the manifest says \(file.bytes); copy it again or convert again")
        }
      }
    }
  }

  /// Exactly the entries that the dense tensors and cores call for are there.
  private static func checkEntries(
    of contents: CheckpointContents, _ found: [TensorInfo], _ path: String
  ) throws {
    var rest = Dictionary(found.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    for array in contents.arrays {
      for expected in array.storedEntries {
        guard let entry = rest.removeValue(forKey: expected.key) else {
          throw MPOCheckpointError.tensor(path: path, tensor: expected.name, reason: "is missing from the shards")
        }
        guard entry.shape == expected.shape, entry.dtype == expected.dtype else {
          throw MPOCheckpointError.tensor(
            path: path, tensor: expected.name,
            reason: "is \(entry.dtype.rawValue) \(entry.shape), the manifest says "
              + "\(expected.dtype.rawValue) \(expected.shape)")
        }
      }
    }
    if let extra = rest.keys.min() {
      throw MPOCheckpointError.tensor(
        path: path, tensor: extra.text, reason: "is in the shards but not in the manifest")
    }
  }

  /// The tensors, operators and cores of the manifest.
  public var contents: CheckpointContents { manifest.contents }

  /// The record of a tensor; nil where there is none.
  public func record(named name: String) -> TensorRecord? { contents.tensor(named: name) }

  /// The record that holds the elements of `record`: itself, or the one it is tied to.
  /// - Throws: `MPOCheckpointError` where that one is missing.
  public func holder(of record: TensorRecord) throws -> TensorRecord {
    guard case .tied(let other) = record.storage else { return record }
    guard let holder = self.record(named: other) else { throw missing(other) }
    return holder
  }

  private func missing(_ name: String) -> MPOCheckpointError {
    .tensor(path: path, tensor: name, reason: "is missing")
  }

  /// Calls `body` with the bytes of an entry of a core or dense tensor, unpacked. Memory: those of the entry where it is packed.
  /// - Throws: `MPOCheckpointError` for a packed entry that is damaged.
  public func withEntryBytes<Result>(
    of entry: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard let packed = packed[entry.key] else {
      // The shards know nothing of the sides of a matrix, which are part of what a record says.
      let stored = TensorInfo(name: entry.name, dtype: entry.dtype, shape: entry.shape)
      return try shards.withBytes(of: stored, body)
    }
    guard (packed.dtype, packed.shape) == (entry.dtype, entry.shape) else {
      throw MPOCheckpointError.tensor(
        path: path, tensor: entry.name, reason: "is not \(entry.dtype.rawValue) \(entry.shape)")
    }
    let stored = packed.stored
    do {
      let table = try shards.withBytes(of: stored, in: 0..<packed.layout.tableBytes) {
        try PackedTable(of: packed, $0)
      }
      var unpacker = try EntryUnpacker(table)
      let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: packed.unpackedBytes, alignment: 64)
      defer { bytes.deallocate() }
      for block in 0..<packed.layout.blockCount {
        let target = UnsafeMutableRawBufferPointer(rebasing: bytes[packed.layout.range(ofBlock: block)])
        try shards.withBytes(of: stored, in: table.storedRange(ofBlock: block)) {
          try unpacker.unpack(block: block, $0, into: target)
        }
      }
      return try body(UnsafeRawBufferPointer(bytes))
    } catch let error as PackingError {
      throw MPOCheckpointError.tensor(path: path, tensor: entry.name, reason: error.description)
    }
  }

  /// Calls `body` with the bytes of a dense tensor as the source had them: rounded to its dtype, where it is kept in another
  /// encoding.
  /// - Throws: `CheckpointError` and `MPOCheckpointError` when they can't be read; what `body` throws.
  public func withDenseBytes<Result>(
    of record: TensorRecord, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard let array = record.array, let own = self.record(named: record.name), own.isDense else {
      throw MPOCheckpointError.tensor(path: path, tensor: record.name, reason: "is not stored dense")
    }
    if array.encoding == .plain(record.dtype) { return try withEntryBytes(of: record.info, body) }
    let elements: [Double] = try elements(of: array)
    return try elements.withUnsafeBufferPointer { try Double.withRounded($0, to: record.dtype, body) }
  }

  /// What is wrong inside of arrays: unpacks what is packed, and reads all scales, pivots and permutations.
  /// - Throws: What keeps an entry from being looked at.
  public func damagedEntries() throws -> [MPOCheckpointError] {
    try contents.arrays.compactMap { array in
      do {
        for entry in array.packed { try withEntryBytes(of: entry.unpacked) { _ in } }
        if let core = array as? CoreRecord, core.role == .permutation { _ = try permutation(core.name) }
        if array.entries.count > 1 { let _: [Float] = try elements(of: array) }
        return nil
      } catch let error as MPOCheckpointError {
        return error
      }
    }
  }

  /// The files whose SHA-256 is not the manifest's, each with what is wrong; reads them whole.
  /// - Throws: What keeps a file from being looked at.
  public func damagedFiles() throws -> [MPOCheckpointError] {
    try (manifest.shards + manifest.companions).compactMap { try Self.damage(of: $0, in: path) }
  }

  private static func damage(of file: FileFingerprint, in path: String) throws -> MPOCheckpointError? {
    let found = try FileFingerprint(ofFileAt: path + "/" + file.file, named: file.file)
    if found == file { return nil }
    return .file(
      path: path + "/" + file.file,
      reason: "was changed after it was written: its SHA-256 is \(found.sha256), the manifest says \(file.sha256); "
        + "copy it again or convert again")
  }

  /// What is wrong with the files of a checkpoint that can't be opened: each that is missing, of another kind or size, or
  /// was changed; nothing where the manifest itself can't be read.
  public static func fileProblems(at path: String) -> [String] {
    guard let manifest = try? readManifest(path + "/" + CheckpointManifest.fileName) else { return [] }
    return (manifest.shards + manifest.companions).compactMap { file in
      do {
        try check(file, in: path)
        return try damage(of: file, in: path)?.description
      } catch {
        return "\(error)"
      }
    }
  }
}
