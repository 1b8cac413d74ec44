import CHDF5
import CLinux
import Dispatch
import Glibc
import Synchronization

/// Reads a dataset chunk by chunk: the stored bytes with libhdf5, one at a time, what follows on all processors.
struct HDF5ChunkReader {
  private let file: HDF5File
  private let dataset: HDF5Dataset
  private let grid: HDF5ChunkGrid

  init(_ file: HDF5File, _ dataset: HDF5Dataset, _ grid: HDF5ChunkGrid) {
    self.file = file
    self.dataset = dataset
    self.grid = grid
  }

  /// The dataset, open for the time of one read.
  private final class OpenDataset: @unchecked Sendable {
    let id: hid_t
    init(_ id: hid_t) { self.id = id }
    deinit {
      _ = HDF5Library.withLock { H5Idec_ref(id) }
    }
  }

  /// Memory that the threads write disjoint parts of.
  private struct Target: @unchecked Sendable {
    let buffer: UnsafeMutableRawBufferPointer
  }

  private struct Progress {
    var next = 0
    var failure: (any Error)?
  }

  /// Reads rows of the first axis.
  ///
  /// - Parameter buffer: As many bytes as the rows have, all zero.
  func read(_ rows: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws {
    let count = grid.count(of: rows)
    let (open, fill) = try prepare()
    let target = Target(buffer: buffer)
    let progress = Mutex(Progress())
    let threads = grid.filters.isEmpty ? 1 : min(count, HDF5ChunkReader.processorCount)
    DispatchQueue.concurrentPerform(iterations: max(threads, 1)) { _ in
      var decoder = HDF5ChunkDecoder(grid)
      while true {
        let number: Int? = progress.withLock { progress in
          guard progress.failure == nil, progress.next < count else { return nil }
          defer { progress.next += 1 }
          return progress.next
        }
        guard let number else { return }
        do {
          try read(grid.offset(ofChunk: number, of: rows), of: rows, open.id, fill, &decoder, into: target.buffer)
        } catch {
          progress.withLock { if $0.failure == nil { $0.failure = error } }
        }
      }
    }
    if let failure = progress.withLock({ $0.failure }) { throw failure }
  }

  /// Looks up where every chunk is, and reads none.
  func locateAll() throws {
    let rows = 0..<(dataset.shape.first ?? 0)
    let count = grid.count(of: rows)
    let (open, _) = try prepare()
    for number in 0..<count {
      let place = grid.offset(ofChunk: number, of: rows).map { hsize_t($0) }
      HDF5Library.withLock {
        var size: hsize_t = 0
        if H5Dget_chunk_storage_size(open.id, place, &size) < 0 { _ = HDF5Library.takeReason() }
      }
    }
  }

  private func failed(_ reason: String) -> CheckpointError {
    file.malformed(dataset.path, "can't be read: \(reason)")
  }

  /// Opens the dataset; also gives the fill value of its chunks that were never written, `nil` when it is zero.
  private func prepare() throws -> (OpenDataset, fill: [UInt8]?) {
    var fill = [UInt8](repeating: 0, count: grid.elementSize)
    let id = try file.withIdentifier { identifier in
      let id = H5Dopen2(identifier, dataset.path, mpo_h5p_default())
      try checkHDF5(id, orThrow: failed)
      do {
        let creation = try HDF5Identifier(H5Dget_create_plist(id), orThrow: failed)
        let type = try HDF5Identifier(H5Dget_type(id), orThrow: failed)
        var status = H5D_FILL_VALUE_UNDEFINED
        try checkHDF5(H5Pfill_value_defined(creation.id, &status), orThrow: failed)
        if status == H5D_FILL_VALUE_USER_DEFINED {
          try checkHDF5(H5Pget_fill_value(creation.id, type.id, &fill), orThrow: failed)
        }
      } catch {
        H5Idec_ref(id)
        throw error
      }
      return id
    }
    return (OpenDataset(id), fill.allSatisfy { $0 == 0 } ? nil : fill)
  }

  private func read(
    _ offset: [Int], of rows: Range<Int>, _ id: hid_t, _ fill: [UInt8]?, _ decoder: inout HDF5ChunkDecoder,
    into buffer: UnsafeMutableRawBufferPointer
  ) throws {
    let place = offset.map { hsize_t($0) }
    var mask: UInt32 = 0
    let byteCount: Int = try HDF5Library.withLock {
      var size: hsize_t = 0
      if H5Dget_chunk_storage_size(id, place, &size) < 0 {
        let reason = HDF5Library.takeReason()
        // That it was never written is not an error of the file.
        var address = mpo_haddr_undefined()
        try checkHDF5(H5Dget_chunk_info_by_coord(id, place, nil, &address, &size), orThrow: failed)
        guard address == mpo_haddr_undefined() else { throw failed(reason) }
        return 0
      }
      guard let byteCount = Int(exactly: size), byteCount <= file.map.byteCount else {
        throw failed("a chunk claims \(size) bytes, more than the file has")
      }
      guard byteCount > 0 else { return 0 }
      // Deflate can't do better.
      guard grid.chunkByteCount / 1032 <= byteCount + 4096 else {
        throw failed("a chunk of \(byteCount) bytes claims to hold \(grid.chunkByteCount)")
      }
      let room = decoder.room(for: byteCount)
      try checkHDF5(H5Dread_chunk(id, mpo_h5p_default(), place, &mask, room.baseAddress), orThrow: failed)
      return byteCount
    }
    if byteCount == 0 {
      guard let fill else { return }
      let chunk = [[UInt8]](repeating: fill, count: grid.chunkByteCount / grid.elementSize).flatMap { $0 }
      return chunk.withUnsafeBytes { grid.scatter($0, at: offset, of: rows, to: buffer) }
    }
    if grid.isOnePiece(offset, of: rows) {
      let start = grid.place(of: offset, in: rows)
      let target = UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + grid.chunkByteCount])
      let chunk = try decoder.decode(byteCount: byteCount, mask: mask, into: target, orThrow: failed)
      if chunk.baseAddress != target.baseAddress.map({ UnsafeRawPointer($0) }) { target.copyMemory(from: chunk) }
    } else {
      let chunk = try decoder.decode(byteCount: byteCount, mask: mask, into: nil, orThrow: failed)
      grid.scatter(chunk, at: offset, of: rows, to: buffer)
    }
  }

  /// The processors that this process may run on.
  private static let processorCount = max(Int(mpo_processor_count()), 1)
}
