import Files
import Glibc
import Synchronization

/// A safetensors file being written.
///
/// The header is complete from the start: tensors are laid out in the order they are declared in, without gaps, as the
/// format demands. The header's length is a multiple of 8, so a tensor is aligned to its element size as long as all
/// before it are multiples of that size; declare wide types before narrow ones to have all of them aligned.
///
/// Tensors are written at their place, in any order and from any thread.
public final class SafetensorsWriter: DenseCheckpointWriter {
  /// The file that is written.
  public let path: String
  /// The size of the whole file, in bytes.
  public let byteCount: Int

  private struct Place {
    let offset: Int
    let byteCount: Int
    let number: Int
  }
  private struct State {
    var isWritten: [Bool]
    var isFinished = false
  }

  private let file: OutputFile
  private let tensors: [TensorInfo]
  private let places: [TensorName: Place]
  private let state: Mutex<State>

  /// Creates the file at `path` (or empties the one that is there) and writes the header.
  ///
  /// - Parameters:
  ///   - path: The file to write.
  ///   - tensors: The tensors, in the order of their data.
  ///   - metadata: The `__metadata__` of the file, written in the order of the keys; none where it is empty.
  /// - Throws: `CheckpointError` where names occur twice or a shape has no size, and where the file can't be written.
  public init(path: String, tensors: [TensorInfo], metadata: CheckpointMetadata = [:]) throws {
    let (header, sizes) = try SafetensorsWriter.header(of: tensors, metadata, path)
    var places: [TensorName: Place] = [:]
    var offset = header.count
    for (number, tensor) in tensors.enumerated() {
      let place = Place(offset: offset, byteCount: sizes[number], number: number)
      guard places.updateValue(place, forKey: tensor.key) == nil else {
        throw CheckpointError.malformed(file: path, tensor: tensor.name, reason: "it is declared twice")
      }
      offset += sizes[number]
    }
    self.path = path
    self.tensors = tensors
    self.places = places
    byteCount = offset
    state = Mutex(State(isWritten: sizes.map { $0 == 0 }))
    file = try OutputFile(path: path, byteCount: offset)
    try header.withUnsafeBytes { try file.write($0, at: 0) }
  }

  public func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws {
    guard let place = places[TensorName(name)] else {
      throw CheckpointError.malformed(file: path, tensor: name, reason: "it is written but was not declared")
    }
    guard bytes.count == place.byteCount else {
      throw CheckpointError.malformed(
        file: path, tensor: name, reason: "\(bytes.count) bytes are written, \(place.byteCount) were declared")
    }
    try state.withLock { state in
      guard !state.isFinished, bytes.isEmpty || !state.isWritten[place.number] else {
        throw CheckpointError.malformed(file: path, tensor: name, reason: "it is written twice, or after the end")
      }
      state.isWritten[place.number] = true
    }
    do {
      try file.write(bytes, at: place.offset)
    } catch {
      state.withLock { $0.isWritten[place.number] = false }
      throw error
    }
  }

  public func finish() throws {
    let missing = state.withLock { state -> Int? in
      let missing = state.isWritten.firstIndex(of: false)
      if missing == nil { state.isFinished = true }
      return missing
    }
    if let missing {
      throw CheckpointError.malformed(
        file: path, tensor: tensors[missing].name, reason: "it was declared but not written")
    }
    try file.synchronize()
  }

  /// The header with its length in front, padded with spaces, and the size of each tensor in bytes.
  private static func header(
    of tensors: [TensorInfo], _ metadata: CheckpointMetadata, _ path: String
  ) throws -> (bytes: [UInt8], sizes: [Int]) {
    var members: [String] = []
    members.reserveCapacity(tensors.count + 1)
    if !metadata.isEmpty {
      let pairs = metadata.sorted.map { "\(jsonString($0.name)):\(jsonString($0.text))" }
      members.append("\"\(SafetensorsHeader.metadataName)\":{\(pairs.joined(separator: ","))}")
    }
    var sizes: [Int] = []
    var end = 0
    for tensor in tensors {
      func malformed(_ reason: String) -> CheckpointError {
        .malformed(file: path, tensor: tensor.name, reason: reason)
      }
      guard tensor.name != SafetensorsHeader.metadataName else { throw malformed("the format reserves this name") }
      let size = try tensor.checkedByteCount(orThrow: malformed)
      let (next, overflows) = end.addingReportingOverflow(size)
      guard !overflows, next < Int.max / 2 else { throw malformed("the file would be too large for any disk") }
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      members.append(
        jsonString(tensor.name)
          + ":{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":[\(shape)],\"data_offsets\":[\(end),\(next)]}")
      sizes.append(size)
      end = next
    }
    var text = Array("{\(members.joined(separator: ","))}".utf8)
    text.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - text.count % 8) % 8))
    guard text.count <= SafetensorsFile.maximumHeaderLength else {
      throw CheckpointError.malformed(
        file: path, tensor: nil,
        reason: "the header would take \(text.count) bytes, the format allows \(SafetensorsFile.maximumHeaderLength)")
    }
    let length = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) }
    return (length + text, sizes)
  }
}
