import Checkpoints
import Files
import FoundationEssentials
import LinearAlgebra
import TensorNetworks

/// An MPO checkpoint open for reading. Opening it checks everything FORMAT.md asks for but the checksums of the shards.
public struct MPOCheckpoint: Sendable {
  public let path: String
  public let manifest: Manifest
  private let shards: any DenseCheckpoint
  private let packed: [String: PackedEntry]
  private let records: [String: Int]
  /// What the folder was when it was opened.
  private let identity: FileStatus

  /// Whether a folder with a manifest of this format is at `path`.
  public static func isPresent(at path: String) -> Bool {
    isMPOManifest(at: path + "/" + Manifest.fileName)
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
    guard status.kind == .folder, try FileStatus(at: path + "/" + Manifest.fileName) != nil else {
      throw MPOCheckpointError.notAnMPOCheckpoint(
        path: path, reason: "is no MPO checkpoint (a folder with a manifest.json); make one with 'mpo convert'")
    }
    self.path = path
    identity = status
    let manifest = try Self.readManifest(path + "/" + Manifest.fileName)
    self.manifest = manifest
    try Self.checkFiles(of: manifest, in: path)

    let records = try Dictionary(
      manifest.tensors.enumerated().map { ($1.name, $0) },
      uniquingKeysWith: { _, index in
        throw MPOCheckpointError.tensor(
          path: path, tensor: manifest.tensors[index].name, reason: "has two records in the manifest")
      })
    self.records = records
    try Self.checkTies(of: manifest, records, path)
    if let part = manifest.part, !part.isConsistent(tensors: manifest.tensors.count) {
      throw MPOCheckpointError.manifest(
        path: path + "/" + Manifest.fileName, reason: "has an invalid member 'part'")
    }

    if let skeleton = manifest.source?.skeleton, !manifest.companions.contains(where: { $0.file == skeleton }) {
      throw MPOCheckpointError.manifest(
        path: path + "/" + Manifest.fileName, reason: "does not list its skeleton '\(escaped(skeleton))'")
    }
    guard let first = manifest.shards.first else {
      throw MPOCheckpointError.manifest(path: path + "/" + Manifest.fileName, reason: "lists no shards")
    }
    let isSharded = manifest.shards.count > 1
    let entryPoint = isSharded ? MPOCheckpointWriter.indexName : first.file
    shards = try openDenseCheckpoint(at: path + "/" + entryPoint)
    let found = Set(shards.files.map { Self.name(of: $0) })
    guard found == Set(manifest.shards.map(\.file)) else {
      throw MPOCheckpointError.manifest(
        path: path + "/" + Manifest.fileName, reason: "lists other shards than \(entryPoint) does")
    }
    try Self.checkEntries(of: manifest, shards.tensors, path)
    // Files that were opened by name may be those of another checkpoint that has taken its place.
    guard try FileStatus(at: path)?.isSame(as: status) == true else { throw Self.replaced(path) }
    packed = Dictionary(
      manifest.tensors.flatMap(\.packed).map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  private static func replaced(_ path: String) -> MPOCheckpointError {
    .file(path: path, reason: "was replaced while it was read; run the command again")
  }

  /// - Throws: `MPOCheckpointError.file` when another checkpoint has taken the place of this one since it was opened:
  ///   files that are opened by name are of that one. (The tensors are not: their files are open.)
  public func checkNotReplaced() throws {
    guard let now = try FileStatus(at: path), now.isSame(as: identity) else { throw Self.replaced(path) }
  }

  private static func name(of file: String) -> String { file.split(separator: "/").last.map(String.init) ?? file }

  private static func readManifest(_ path: String) throws -> Manifest {
    let file = try MappedFile(path: path)
    guard file.byteCount <= ManifestFile.maximumByteCount else {
      throw MPOCheckpointError.manifest(path: path, reason: "is larger than \(ManifestFile.maximumByteCount) bytes")
    }
    return try file.withBytes(in: 0..<file.byteCount) { try ManifestFile.decode(Data($0), path: path) }
  }

  /// Every file listed is a regular file inside the folder and of its size.
  private static func checkFiles(of manifest: Manifest, in path: String) throws {
    for file in manifest.shards + manifest.companions { try check(file, in: path) }
  }

  private static func check(_ file: FileFingerprint, in path: String) throws {
    do {
      let parts = file.file.split(separator: "/", omittingEmptySubsequences: false)
      guard !parts.isEmpty, parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." }), !file.file.contains("\0")
      else {
        throw MPOCheckpointError.manifest(
          path: path + "/" + Manifest.fileName, reason: "names a file outside the folder: '\(escaped(file.file))'")
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

  private static func checkTies(of manifest: Manifest, _ records: [String: Int], _ path: String) throws {
    for record in manifest.tensors {
      guard case .tied(let other) = record.storage else { continue }
      func invalid(_ reason: String) -> MPOCheckpointError { .tensor(path: path, tensor: record.name, reason: reason) }
      guard let target = records[other].map({ manifest.tensors[$0] }) else {
        throw invalid("is tied to '\(escaped(other))', which is not there")
      }
      if case .tied = target.storage { throw invalid("is tied to '\(escaped(other))', which is tied itself") }
      guard target.dtype == record.dtype, target.shape == record.shape else {
        throw invalid("is tied to '\(escaped(other))', which has another dtype or shape")
      }
    }
  }

  /// Exactly the entries the records call for are there.
  private static func checkEntries(
    of manifest: Manifest, _ found: [TensorInfo], _ path: String
  ) throws {
    var rest = Dictionary(found.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    for record in manifest.tensors {
      for expected in record.storedEntries {
        guard let entry = rest.removeValue(forKey: expected.name) else {
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
      throw MPOCheckpointError.tensor(path: path, tensor: extra, reason: "is in the shards but not in the manifest")
    }
  }

  /// The record of a tensor; nil where there is none.
  public func record(named name: String) -> TensorRecord? { records[name].map { manifest.tensors[$0] } }

  /// The record that holds the elements of `record`: itself, or the one it is tied to.
  public func holder(of record: TensorRecord) throws -> TensorRecord {
    guard case .tied(let other) = record.storage else { return record }
    guard let holder = self.record(named: other) else {
      throw MPOCheckpointError.tensor(path: path, tensor: other, reason: "is not there")
    }
    return holder
  }

  /// Reads the cores of a tensor, widened exactly.
  /// - Throws: `CheckpointError` when they can't be read.
  public func mpo<Scalar: CheckpointScalar>(
    _ record: TensorRecord, _ mpo: MPORecord, as type: Scalar.Type = Scalar.self
  ) throws -> MPO<Scalar> {
    let entries = record.entries
    let cores = try entries.prefix(mpo.shape.siteCount).enumerated().map { index, entry in
      try withEntryBytes(of: entry) { bytes in
        guard index == mpo.shape.centralIndex, mpo.centralScales != nil, let scales = entries.last else {
          return try Scalar.withElements(bytes, of: entry.dtype) { Core(shape: entry.shape, elements: Array($0)) }
        }
        return try quantizedCore(entry, bytes, scales).core()
      }
    }
    return MPO(shape: mpo.shape, cores: cores)
  }

  private func quantizedCore(
    _ entry: TensorInfo, _ bytes: UnsafeRawBufferPointer, _ scales: TensorInfo
  ) throws -> QuantizedCore {
    QuantizedCore(
      shape: entry.shape, bytes: Array(bytes.bindMemory(to: Int8.self)), scaleShape: scales.shape,
      scales: try self.scales(scales))
  }

  private func scales(_ entry: TensorInfo) throws -> [Float] {
    let values = try withEntryBytes(of: entry) { try TensorElements.withFloats(of: $0, .f32) { Array($0) } }
    guard values.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
      throw MPOCheckpointError.tensor(
        path: path, tensor: entry.name, reason: "has a scale that is negative or not finite; convert the model again")
    }
    return values
  }

  /// Calls `body` with the bytes of one of a record's entries, unpacked. Memory: those of the entry where it is packed.
  /// - Throws: `MPOCheckpointError` for a packed entry that is damaged.
  public func withEntryBytes<Result>(
    of entry: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard let packed = packed[entry.name] else {
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

  /// Calls `body` with the bytes of a tensor of kind dense.
  public func withDenseBytes<Result>(
    of record: TensorRecord, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard record.storage == .dense, records[record.name] != nil else {
      throw MPOCheckpointError.tensor(path: path, tensor: record.name, reason: "is not stored dense")
    }
    return try withEntryBytes(of: record.info, body)
  }

  /// What is wrong with packed entries and with scales: unpacks all of them.
  public func damagedEntries() throws -> [MPOCheckpointError] {
    try manifest.tensors.flatMap { record in
      try record.entries.compactMap { entry in
        do {
          if packed[entry.name] != nil { try withEntryBytes(of: entry) { _ in } }
          if record.mpo?.centralScales != nil, entry == record.entries.last { _ = try scales(entry) }
          return nil
        } catch let error as MPOCheckpointError {
          return error
        }
      }
    }
  }

  /// The files whose SHA-256 is not the manifest's, each with what is wrong; reads them whole.
  public func damagedFiles() throws -> [MPOCheckpointError] {
    try (manifest.shards + manifest.companions).compactMap { try Self.damage(of: $0, in: path) }
  }

  private static func damage(of file: FileFingerprint, in path: String) throws -> MPOCheckpointError? {
    let found = try FileFingerprint(ofFileAt: path + "/" + file.file, named: file.file)
    if found == file { return nil }
    return .file(
      path: path + "/" + file.file,
      reason: "was changed after it was written: its SHA-256 is \(found.sha256), the manifest says \(file.sha256)")
  }

  /// What is wrong with the files of a checkpoint that can't be opened: each that is missing, of another kind or size, or
  /// was changed; nothing where the manifest itself can't be read.
  public static func fileProblems(at path: String) -> [String] {
    guard let manifest = try? readManifest(path + "/" + Manifest.fileName) else { return [] }
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
