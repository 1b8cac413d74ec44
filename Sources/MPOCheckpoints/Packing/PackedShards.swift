import Checkpoints
import Files
import LinearAlgebra
import Synchronization

/// Shards of packed entries being written: entries arrive in any order and from any thread and are packed on the thread
/// they come from. As their sizes are known in the end only, they wait in a file without a name until `shards` is called.
///
/// Memory: two blocks and zlib's own for each thread. The folder has room for the packed entries twice until the end.
final class PackedShards: Sendable {
  /// Where an entry waits, and how.
  private struct Place {
    let entry: TensorInfo
    let offset: Int
    var state = State.missing

    enum State {
      case missing
      case writing
      case raw
      case packed(PackedEntry)
    }
  }

  private let folder: String
  private let spool: SpoolFile
  private let numbers: [TensorName: Int]
  private let places: Mutex<[Place]>

  /// - Parameter entries: all of them, in the order that decides over their order in the shards.
  init(folder: String, entries: [TensorInfo]) throws {
    var numbers: [TensorName: Int] = [:]
    var places: [Place] = []
    var end = 0
    for entry in entries {
      func malformed(_ reason: String) -> CheckpointError {
        .malformed(file: folder, tensor: entry.name, reason: reason)
      }
      guard numbers.updateValue(places.count, forKey: entry.key) == nil else {
        throw malformed("it is declared twice")
      }
      places.append(Place(entry: entry, offset: end))
      let (sum, overflows) = end.addingReportingOverflow(try entry.checkedByteCount(orThrow: malformed))
      guard !overflows, sum < Int.max / 2 else { throw malformed("the files would be too large for any disk") }
      end = sum
    }
    self.folder = folder
    self.numbers = numbers
    self.places = Mutex(places)
    spool = try SpoolFile(in: folder, byteCount: end)
  }

  /// Packs and keeps the whole of one entry, or keeps it as it is where packing does not make it smaller.
  func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws {
    func malformed(_ reason: String) -> CheckpointError { .malformed(file: folder, tensor: name, reason: reason) }
    guard let number = numbers[TensorName(name)] else { throw malformed("it is written but was not declared") }
    let place = try places.withLock { places in
      guard case .missing = places[number].state else { throw malformed("it is written twice") }
      places[number].state = .writing
      return places[number]
    }
    guard bytes.count == place.entry.byteCount else {
      throw malformed("\(bytes.count) bytes are written, \(place.entry.byteCount) were declared")
    }
    var packer = try EntryPacker()
    let packed = try packer.pack(bytes, of: place.entry) { try spool.write($0, at: place.offset + $1) }
    if packed == nil { try spool.write(bytes, at: place.offset) }
    places.withLock { $0[number].state = packed.map { .packed($0) } ?? .raw }
  }

  /// Writes everything to shards, which are to be finished.
  /// - Returns: the shards, and the entries that are packed in them, by name.
  func shards(
    maximumShardBytes: Int
  ) throws -> (shards: ShardedSafetensorsWriter, packed: [TensorName: PackedEntry]) {
    let places = places.withLock { $0 }
    var packed: [TensorName: PackedEntry] = [:]
    let stored = try places.map { place in
      switch place.state {
      case .raw: return (entry: place.entry, offset: place.offset)
      case .packed(let entry):
        packed[TensorName(entry.name)] = entry
        return (entry: entry.stored, offset: place.offset)
      case .missing where place.entry.byteCount == 0: return (entry: place.entry, offset: place.offset)
      case .missing, .writing:
        throw CheckpointError.malformed(
          file: folder, tensor: place.entry.name, reason: "it was declared but not written")
      }
    }
    let shards = try MPOCheckpointWriter.shards(
      in: folder, entries: stored.map(\.entry), maximumShardBytes: maximumShardBytes)
    try forEachInParallel(stored, jobs: 4) { entry, offset in
      try spool.withBytes(in: offset..<offset + entry.byteCount) { try shards.write($0, to: entry.name) }
    }
    return (shards, packed)
  }
}
