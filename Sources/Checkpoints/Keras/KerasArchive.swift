import CZip
import Files
import Glibc

/// A Keras model as Keras 3 saves it: a zip archive with the configuration, and the weights as an HDF5 file, or as shards
/// with an index.
enum KerasArchive {
  static let weightsName = "model.weights.h5"
  static let indexName = "model" + WeightsName.kerasIndexEnding

  /// What a byte of the archive may stand for at most; Keras stores the weights as they are.
  private static let maximumRatio: UInt64 = 100
  /// Smaller files are extracted whatever their ratio.
  private static let harmlessByteCount: UInt64 = 64 << 20

  /// The files of weights in the archive at `path`, each extracted to a temporary file, whose name is still to be taken
  /// away by `body`.
  ///
  /// - Returns: what `body` makes of them, and the index where they are shards.
  /// - Throws: `CheckpointError` for an archive that is damaged, lacks weights, or whose weights claim to be far larger
  ///   than what is stored for them.
  static func weights<Result>(
    of path: String, _ body: (_ entry: String, _ map: MappedFile, _ file: TemporaryFile) throws -> Result
  ) throws -> (files: [Result], shards: KerasShards?) {
    let archive = try Archive(path: path)
    if archive.contains(weightsName) {
      return ([try archive.withExtracted(weightsName) { try body(weightsName, $0, $1) }], nil)
    }
    guard archive.contains(indexName) else {
      throw CheckpointError.notACheckpoint(
        path: path,
        reason: archive.contains("model.weights.npz")
          ? "holds its weights as NumPy arrays (model.weights.npz); load it in Keras with h5py installed and save it again"
          : "is a zip archive without \(weightsName); is it a model saved by Keras 3?")
    }
    let index = try archive.withExtracted(indexName) { map, file in
      file.withPath { _ in }
      return try KerasShards(index: map, name: path + "/" + indexName)
    }
    let files = try index.names.map { name in
      guard archive.contains(name.text) else {
        throw CheckpointError.malformed(
          file: path, tensor: nil,
          reason: "\(indexName) in it names the shard '\(escaped(name.text))', which is not in it; save the model again"
        )
      }
      return try archive.withExtracted(name.text) { try body(name.text, $0, $1) }
    }
    return (files, index)
  }

  /// Writes an archive like another, with other weights.
  ///
  /// - Parameters:
  ///   - path: The file to write, which is replaced.
  ///   - model: The archive whose other entries are copied.
  ///   - weights: The descriptors of the files of weights, by their names in the archive.
  static func write(to path: String, like model: String, weights: [TensorName: CInt]) throws {
    let original = try Archive(path: model)
    var code: CInt = 0
    guard let archive = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code) else {
      throw FileError.io(file: path, operation: "create it", reason: text(of: code))
    }
    func failed() -> FileError {
      .io(file: path, operation: "write it", reason: String(cString: zip_strerror(archive)))
    }
    do {
      for index in 0..<zip_uint64_t(max(zip_get_num_entries(original.handle, 0), 0)) {
        guard let name = zip_get_name(original.handle, index, 0) else { throw original.malformed() }
        let source =
          if let descriptor = weights[TensorName(String(cString: name))] {
            zip_source_file(archive, "/proc/self/fd/\(descriptor)", 0, -1)
          } else {
            zip_source_zip(archive, original.handle, index, 0, 0, -1)
          }
        guard let source else { throw failed() }
        let added = zip_file_add(archive, name, source, zip_flags_t(ZIP_FL_ENC_GUESS))
        guard added >= 0 else {
          zip_source_free(source)
          throw failed()
        }
        guard
          // Keras stores everything as it is, on the first day that the format knows.
          zip_set_file_compression(archive, zip_uint64_t(added), ZIP_CM_STORE, 0) == 0,
          zip_file_set_dostime(archive, zip_uint64_t(added), 0, 0x21, 0) == 0
        else { throw failed() }
      }
      guard zip_close(archive) == 0 else { throw failed() }
    } catch {
      zip_discard(archive)
      throw error
    }
    withExtendedLifetime(original) {}
    try flush(path)
  }

  private static func text(of code: CInt) -> String {
    var error = zip_error_t()
    zip_error_init_with_code(&error, code)
    defer { zip_error_fini(&error) }
    return String(cString: zip_error_strerror(&error))
  }

  /// An archive open for reading.
  private final class Archive {
    let path: String
    let handle: OpaquePointer
    let byteCount: Int
    private let file: MappedFile

    init(path: String) throws {
      // Refuses what is not a regular file.
      file = try MappedFile(path: path)
      self.path = path
      byteCount = file.byteCount
      let copy = try FileError.naming(path, "open it") { [file] () throws(SystemError) in
        try Posix.duplicate(file.descriptor)
      }
      var code: CInt = 0
      guard let handle = zip_fdopen(copy, ZIP_CHECKCONS, &code) else {
        Posix.close(copy)
        throw CheckpointError.malformed(
          file: path, tensor: nil, reason: "is not a valid zip archive: \(text(of: code))")
      }
      self.handle = handle
    }

    deinit { zip_discard(handle) }

    func malformed() -> CheckpointError {
      .malformed(file: path, tensor: nil, reason: "is a damaged zip archive: \(String(cString: zip_strerror(handle)))")
    }

    func contains(_ name: String) -> Bool { zip_name_locate(handle, name, 0) >= 0 }

    /// Calls `body` with an entry, extracted to a temporary file, whose name it takes away.
    func withExtracted<Result>(
      _ name: String, _ body: (MappedFile, TemporaryFile) throws -> Result
    ) throws -> Result {
      let index = zip_uint64_t(max(zip_name_locate(handle, name, 0), 0))
      var status = zip_stat_t()
      guard zip_stat_index(handle, index, 0, &status) == 0 else { throw malformed() }
      let compressed = min(status.comp_size, zip_uint64_t(self.byteCount))
      guard
        status.size <= max(harmlessByteCount, compressed.multipliedReportingOverflow(by: maximumRatio).partialValue),
        let byteCount = Int(exactly: status.size)
      else {
        throw CheckpointError.malformed(
          file: path, tensor: nil,
          reason:
            "\(escaped(name)) in it claims to be \(status.size) bytes, but \(status.comp_size) are stored for it")
      }
      let file = try TemporaryFile()
      do {
        try extract(index, name, byteCount: byteCount, to: file.descriptor)
      } catch {
        file.withPath { _ in Posix.close(file.descriptor) }
        throw error
      }
      let map: MappedFile
      do {
        map = try MappedFile(adopting: file.descriptor, path: path)
      } catch {
        file.withPath { _ in }
        throw error
      }
      return try body(map, file)
    }

    /// Writes an entry's content to a file.
    private func extract(_ index: zip_uint64_t, _ name: String, byteCount: Int, to descriptor: CInt) throws {
      guard let entry = zip_fopen_index(handle, index, 0) else { throw malformed() }
      defer { zip_fclose(entry) }
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
      defer { buffer.deallocate() }
      var done = 0
      while true {
        let count = Int(zip_fread(entry, buffer.baseAddress, zip_uint64_t(buffer.count)))
        guard count >= 0, done + count <= byteCount else {
          throw CheckpointError.malformed(
            file: path, tensor: nil, reason: "\(escaped(name)) in it can't be extracted: it is damaged")
        }
        if count == 0 { break }
        do {
          try Posix.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: descriptor)
        } catch {
          let room = error.code == ENOSPC ? "; set TMPDIR to a folder with room for the weights" : ""
          throw FileError.io(
            file: path, operation: "extract its weights to a temporary file",
            reason: SystemError.reason(error.code) + room)
        }
        done += count
      }
      guard done == byteCount else {
        throw CheckpointError.malformed(
          file: path, tensor: nil, reason: "\(escaped(name)) in it is cut short")
      }
    }
  }
}
