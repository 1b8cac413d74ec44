import ArgumentParser
import Checkpoints
import Dispatch
import MPOCheckpoints
import Synchronization

/// Times packing and unpacking the cores of an MPO checkpoint in memory.
struct Pack: ParsableCommand {
  @Argument var checkpoint: String
  @Option var jobs = 2
  @Option var runs = 1

  /// A core before and after.
  private final class Item: Sendable {
    let info: TensorInfo
    let elements: [UInt8]
    let packed = Mutex<(entry: PackedEntry?, bytes: [UInt8])>((nil, []))

    init(_ info: TensorInfo, _ elements: [UInt8]) {
      self.info = info
      self.elements = elements
      packed.withLock { $0.bytes = Array(repeating: 1, count: elements.count) }
    }

    func pack(_ packer: inout EntryPacker) throws {
      try packed.withLock { packed in
        var bytes = packed.bytes
        packed.bytes = []
        packed.entry = try elements.withUnsafeBytes { elements in
          try bytes.withUnsafeMutableBytes { target in
            try packer.pack(elements, of: info) { part, offset in
              UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: part)
            }
          }
        }
        packed.bytes = bytes
      }
    }

    func unpack(into target: UnsafeMutableRawBufferPointer) throws {
      let (entry, bytes) = packed.withLock { $0 }
      guard let entry else { return elements.withUnsafeBytes { target.copyMemory(from: $0) } }
      try bytes.withUnsafeBytes { stored in
        let table = try PackedTable(
          of: entry, UnsafeRawBufferPointer(rebasing: stored[..<entry.layout.tableBytes]))
        var unpacker = try EntryUnpacker(table)
        for block in 0..<entry.layout.blockCount {
          try unpacker.unpack(
            block: block, UnsafeRawBufferPointer(rebasing: stored[table.storedRange(ofBlock: block)]),
            into: UnsafeMutableRawBufferPointer(rebasing: target[entry.layout.range(ofBlock: block)]))
        }
      }
    }

    var packedBytes: Int { packed.withLock { $0.entry?.bytes } ?? elements.count }
  }

  func run() throws {
    let source = try MPOCheckpoint(path: checkpoint)
    let items = try source.contents.cores.flatMap(\.entries).map { entry in
      Item(entry, try source.withEntryBytes(of: entry) { Array($0) })
    }.sorted { $0.elements.count > $1.elements.count }
    let total = items.reduce(0) { $0 + $1.elements.count }
    let clock = ContinuousClock()
    for _ in 0..<runs {
      let packing = clock.measure {
        forEach(items) { next in
          var packer = try EntryPacker()
          while let item = next() { try item.pack(&packer) }
        }
      }
      let unpacking = clock.measure {
        forEach(items) { next in
          let room = UnsafeMutableRawBufferPointer.allocate(byteCount: items[0].elements.count, alignment: 64)
          defer { room.deallocate() }
          while let item = next() {
            try item.unpack(into: UnsafeMutableRawBufferPointer(rebasing: room[..<item.elements.count]))
          }
        }
      }
      let packed = items.reduce(0) { $0 + $1.packedBytes }
      print("\(total) \(packed) \(packing / .seconds(1)) \(unpacking / .seconds(1))")
    }
  }

  /// Shares the items out among threads.
  private func forEach(_ items: [Item], _ body: @Sendable (() -> Item?) throws -> Void) {
    let position = Atomic(0)
    DispatchQueue.concurrentPerform(iterations: jobs) { _ in
      do {
        try body {
          let index = position.wrappingAdd(1, ordering: .relaxed).oldValue
          return index < items.count ? items[index] : nil
        }
      } catch {
        print("\(error)")
      }
    }
  }
}
