import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes

/// Joins the parts of one conversion to the checkpoint that one run would have written, byte for byte.
public struct Merger: Sendable {
  /// Operators that are worked on at the same time.
  public var jobs: Int
  /// Whether the files of the result are those of the parts under a second name: then it has the same tensors in other files
  /// than one run would have written.
  public var linksFiles: Bool

  /// A merger that works on so many tensors at a time; with `linksFiles` it makes hard links where it can.
  public init(jobs: Int, linksFiles: Bool = false) { (self.jobs, self.linksFiles) = (jobs, linksFiles) }

  /// - Parameters:
  ///   - parts: all parts of a conversion, in any order.
  ///   - folder: an empty folder.
  ///   - progress: called as tensors are finished.
  /// - Returns: the manifest of the whole.
  /// - Throws: `ConversionError.notMergeable` for parts that do not belong together or are not all there, and
  ///   `MPOCheckpointError` for one that was changed after it was written.
  @discardableResult
  public func merge(
    _ parts: [MPOCheckpoint], to folder: String, progress: @escaping ProgressHandler = { _ in }
  ) throws -> CheckpointManifest {
    let (contents, origins) = try contents(of: parts)
    let manifest = parts[0].manifest
    let source = try Self.source(of: parts)
    if linksFiles {
      let merged = try link(parts, contents, origins, source, to: folder)
      for part in parts { try part.checkNotReplaced() }
      return merged
    }
    for part in parts {
      if let damage = try part.damagedFiles().first { throw damage }
    }
    let whole = contents
    let writer = try MPOCheckpointWriter(folder: folder, contents: whole, packs: whole.isPacked)
    let dense = whole.tensors.filter(\.isDense)
    let counter = ProgressCounter(
      .merge,
      total: dense.reduce(whole.cores.reduce(0) { $0 + $1.valueCount }) { $0 + $1.info.elementCount }, progress)
    let owners = origins.mapValues { parts[$0] }
    try forEachInParallel(dense.sorted { ($1.info.byteCount, $0.name) < ($0.info.byteCount, $1.name) }, jobs: jobs) {
      if let part = owners[TensorName($0.name)] { try writer.copyDense($0, from: part) }
      counter.finished($0.name, elements: $0.info.elementCount)
    }
    try forEachInParallel(whole.cores.sorted { ($1.storedBytes, $0.name) < ($0.storedBytes, $1.name) }, jobs: jobs) {
      if let part = owners[TensorName($0.name)] { try writer.copy($0, from: part) }
      counter.finished($0.name, elements: $0.valueCount)
    }
    let merged = try writer.finish(
      generator: manifest.generator, source: source, conversion: manifest.conversion,
      companions: Self.companions(of: manifest).map { Companion(stored: $0.file) },
      from: parts[0].path)
    for part in parts { try part.checkNotReplaced() }
    return merged
  }

  /// Whether a checkpoint is what `merge` would make of the parts, as far as their manifests tell.
  /// - Throws: as `merge` does.
  public func made(_ checkpoint: MPOCheckpoint, of parts: [MPOCheckpoint]) throws -> Bool {
    let (contents, _) = try contents(of: parts)
    let source = try Self.source(of: parts)
    let (own, first) = (checkpoint.manifest, parts[0].manifest)
    let hasFiles = Set(own.shards.map(\.sha256)).isSuperset(of: parts.flatMap { $0.manifest.shards.map(\.sha256) })
    return own.contents == contents && own.part == nil && own.squeeze == nil && own.source == source
      && own.generator == first.generator && own.conversion == first.conversion
      && Self.companions(of: own) == Self.companions(of: first) && (parts.count == 1 || hasFiles == linksFiles)
  }

  /// The tensors of all parts in the order of the source, and for each tensor and core the part that it is taken from.
  private func contents(of parts: [MPOCheckpoint]) throws -> (CheckpointContents, [TensorName: Int]) {
    let places = try Self.places(in: parts)
    var contents = CheckpointContents()
    var origins: [TensorName: Int] = [:]
    for place in places {
      let part = parts[place.part].contents
      let tensor = part.tensors[place.tensor]
      origins[TensorName(tensor.name)] = place.part
      try Self.check(tensor, of: parts[place.part], sharesWith: contents, origins, parts)
      for core in part.namedCores(of: tensor) where origins[TensorName(core.name)] == nil {
        origins[TensorName(core.name)] = place.part
      }
      contents.append(tensor, from: part)
    }
    return (contents, origins)
  }

  /// The result with the files of the parts under a second name.
  private func link(
    _ parts: [MPOCheckpoint], _ contents: CheckpointContents, _ origins: [TensorName: Int],
    _ source: CheckpointManifest.Source?,
    to folder: String
  ) throws -> CheckpointManifest {
    let manifest = parts[0].manifest
    for (number, part) in parts.enumerated() {
      for array in part.contents.arrays where origins[TensorName(array.name)] != number {
        throw ConversionError.notMergeable(
          path: part.path,
          reason: "stores '\(escaped(array.name))', which another part stores too, and only one file of a checkpoint "
            + "may: merge without --hard-links")
      }
    }
    return try MPOCheckpointWriter.link(
      parts, contents: contents, to: folder, generator: manifest.generator, source: source,
      conversion: manifest.conversion, companions: Self.companions(of: manifest).map { Companion(stored: $0.file) })
  }

  /// Checks that what a tensor shares with tensors of other parts is the same there: operators, cores and their bytes.
  private static func check(
    _ tensor: TensorRecord, of part: MPOCheckpoint, sharesWith contents: CheckpointContents,
    _ origins: [TensorName: Int], _ parts: [MPOCheckpoint]
  ) throws {
    func refused(_ name: String, _ kind: String, _ other: MPOCheckpoint) -> ConversionError {
      .notMergeable(
        path: part.path,
        reason:
          "has another \(kind) '\(escaped(name))' than '\(escaped(other.path, limit: 4096))'; convert the parts again")
    }
    for record in (tensor.blocks?.operators ?? []).compactMap({ part.contents.operator(named: $0) }) {
      let origin = origins[TensorName(record.cores[0])].map { parts[$0] }
      if let known = contents.operator(named: record.name), known != record {
        throw refused(record.name, "operator", origin ?? parts[0])
      }
    }
    for core in part.contents.namedCores(of: tensor) {
      guard let origin = origins[TensorName(core.name)].map({ parts[$0] }),
        TensorName(origin.path) != TensorName(part.path)
      else { continue }
      guard let known = contents.core(named: core.name), known.hasSameEntries(as: core) else {
        throw refused(core.name, "core", origin)
      }
      for entry in core.entries {
        let isEqual = try part.withEntryBytes(of: entry) { own in
          try origin.withEntryBytes(of: entry) { $0.elementsEqual(own) }
        }
        if !isEqual { throw refused(core.name, "core", origin) }
      }
    }
  }

  /// The files that every part has: all but the index of its own shards.
  private static func companions(of manifest: CheckpointManifest) -> [FileFingerprint] {
    manifest.companions.filter { $0.file != MPOCheckpointWriter.indexName }
  }

  /// Where each tensor of the source is, after checking that the parts are those of one conversion, each of them once.
  private static func places(in parts: [MPOCheckpoint]) throws -> [(part: Int, tensor: Int)] {
    guard let first = parts.first else { return [] }
    func refused(_ checkpoint: MPOCheckpoint, _ reason: String) -> ConversionError {
      .notMergeable(path: checkpoint.path, reason: reason)
    }
    var count = 0
    var tensorCount = 0
    var seen: [Int: MPOCheckpoint] = [:]
    var places: [Int: (part: Int, tensor: Int)] = [:]
    for (number, checkpoint) in parts.enumerated() {
      guard let part = checkpoint.manifest.part else {
        throw refused(
          checkpoint,
          "is a whole conversion and not a part: it was written without --part, so there is nothing to merge")
      }
      if number == 0 { (count, tensorCount) = (part.count, part.tensorCount) }
      if let difference = difference(checkpoint.manifest, first.manifest) {
        throw refused(
          checkpoint,
          "belongs to another conversion than '\(escaped(first.path, limit: 4096))': \(difference); convert all parts "
            + "of the same model with the same plan and options")
      }
      if let other = seen.updateValue(checkpoint, forKey: part.index) {
        throw refused(
          checkpoint,
          "is part \(part.index) of \(count), as '\(escaped(other.path, limit: 4096))' is; give each part once")
      }
      for (tensor, position) in part.positions.enumerated() {
        if let other = places.updateValue((number, tensor), forKey: position) {
          throw refused(
            checkpoint,
            "holds tensor '\(escaped(checkpoint.contents.tensors[tensor].name))', which is in "
              + "'\(escaped(parts[other.part].path, limit: 4096))' too; convert the parts again")
        }
      }
    }
    let missing = (1...max(1, count)).filter { seen[$0] == nil }
    guard missing.isEmpty else {
      let list = missing.prefix(5).map(String.init).joined(separator: ", ") + (missing.count > 5 ? ", …" : "")
      throw refused(first, "is one of \(count) parts; not given: \(list)")
    }
    return try (0..<tensorCount).map { position in
      guard let place = places[position] else {
        throw refused(
          first, "and the other parts lack tensor \(position + 1) of \(tensorCount); convert the parts again")
      }
      return place
    }
  }

  /// The source with the fingerprints of all of its files, each of which one part has.
  private static func source(of parts: [MPOCheckpoint]) throws -> CheckpointManifest.Source? {
    guard var source = parts[0].manifest.source, let count = parts[0].manifest.part?.files?.count else {
      return parts[0].manifest.source
    }
    var files: [Int: FileFingerprint] = [:]
    for part in parts {
      for (position, file) in zip(part.manifest.part?.files?.positions ?? [], part.manifest.source?.files ?? []) {
        files[position] = file
      }
    }
    source.files = try (0..<max(0, count)).map { position in
      guard let file = files[position] else {
        throw ConversionError.notMergeable(
          path: parts[0].path,
          reason: "and the other parts lack the checksum of file \(position + 1) of \(count) of the source; convert "
            + "the parts again")
      }
      return file
    }
    return source
  }

  /// What two parts of one conversion have in common and these have not.
  private static func difference(_ a: CheckpointManifest, _ b: CheckpointManifest) -> String? {
    let (ours, theirs) = (a.part?.files, b.part?.files)
    guard ours?.sample == theirs?.sample, ours?.count == theirs?.count,
      ours != nil || a.source?.files == b.source?.files
    else { return "the source files differ in size or content" }
    func withoutFiles(_ source: CheckpointManifest.Source?) -> CheckpointManifest.Source? {
      var source = source
      source?.files = []
      return source
    }
    if withoutFiles(a.source) != withoutFiles(b.source) { return "the metadata of the source differ" }
    func values(_ recipe: ConversionRecipe?) -> [String: TensorName]? { recipe?.values.mapValues { TensorName($0) } }
    if a.conversion != b.conversion || values(a.conversion) != values(b.conversion) { return "the recipes differ" }
    if a.generator != b.generator {
      return "they were written by '\(escaped(a.generator))' and '\(escaped(b.generator))'"
    }
    if a.part?.count != b.part?.count { return "the numbers of parts differ" }
    if a.part?.tensorCount != b.part?.tensorCount { return "the numbers of tensors differ" }
    if companions(of: a) != companions(of: b) { return "the files copied from the model folder differ" }
    return nil
  }
}

extension CoreRecord {
  /// Whether both are the same array, packed or not.
  fileprivate func hasSameEntries(as other: CoreRecord) -> Bool {
    role == other.role && shape == other.shape && encoding == other.encoding
  }
}
