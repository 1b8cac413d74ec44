import Files

/// A safetensors file, mapped into memory.
///
/// The format: 8 bytes with the header's length (little-endian), the header as a JSON object, then the tensors' bytes
/// without a gap. All its rules are checked when the file is opened; the bytes are read when they are asked for.
public struct SafetensorsFile: DenseCheckpoint {
  public let path: String
  public let tensors: [TensorInfo]
  public let metadata: CheckpointMetadata

  private let file: MappedFile
  /// Index into `tensors`, by name.
  private let indices: [TensorName: Int]
  /// Where each tensor of `tensors` starts in the file.
  private let starts: [Int]

  /// The longest header the format allows, in bytes.
  public static let maximumHeaderLength = 100_000_000

  /// `safetensors`.
  public var format: CheckpointFormat { .safetensors }
  public var files: [String] { [path] }

  /// Opens the file at `path` and checks its header.
  /// - Throws: `CheckpointError` for what is no valid safetensors file; `FileError` where it can't be read.
  public init(path: String) throws {
    let file = try MappedFile(path: path)
    let dataStart = try SafetensorsFile.headerEnd(in: file)
    let header = try file.withBytes(in: 8..<dataStart) {
      try SafetensorsHeader(decoding: $0, dataByteCount: file.byteCount - dataStart, path: path)
    }
    self.path = path
    self.file = file
    metadata = header.metadata
    tensors = header.entries.map(\.tensor)
    starts = header.entries.map { dataStart + $0.begin }
    indices = Dictionary(zip(tensors.map(\.key), tensors.indices)) { first, _ in first }
  }

  public func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    let start = try start(of: tensor)
    return try file.withBytes(in: start..<start + tensor.byteCount, body)
  }

  public func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    let start = try start(of: tensor)
    guard range.lowerBound >= 0, range.upperBound <= tensor.byteCount else {
      throw CheckpointError.rangeOutside(tensor, range, of: path)
    }
    return try file.withBytes(in: start + range.lowerBound..<start + range.upperBound, body)
  }

  public func tensor(named name: String) -> TensorInfo? { indices[TensorName(name)].map { tensors[$0] } }

  private func start(of tensor: TensorInfo) throws -> Int {
    guard let index = indices[tensor.key], tensors[index] == tensor else {
      throw CheckpointError.noSuchTensor(tensor, in: path)
    }
    return starts[index]
  }

  /// The offset of the first tensor byte, from the length field.
  private static func headerEnd(in file: MappedFile) throws -> Int {
    func malformed(_ reason: String) -> CheckpointError {
      .malformed(file: file.path, tensor: nil, reason: reason)
    }
    guard file.byteCount > 0 else { throw malformed("the file is empty") }
    guard file.byteCount >= 8 else {
      throw malformed("it has \(file.byteCount) bytes, too few for the 8 bytes that every safetensors file starts with")
    }
    if try !SafetensorsReader.recognizes(head: ForeignFormat.head(of: file)) { try ForeignFormat.refuse(file) }
    let length = try file.withBytes(in: 0..<8) { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
    guard length <= UInt64(maximumHeaderLength) else {
      throw malformed(
        "the header would be \(length) bytes long, more than the \(maximumHeaderLength) of the format; "
          + "is it a safetensors file?")
    }
    guard Int(length) <= file.byteCount - 8 else {
      throw malformed(
        "the header of \(length) bytes reaches beyond the file of \(file.byteCount) bytes; it is cut short, "
          + "or not a safetensors file")
    }
    return 8 + Int(length)
  }
}
