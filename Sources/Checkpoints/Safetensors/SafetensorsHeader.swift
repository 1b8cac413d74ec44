import Files

/// The decoded header of a safetensors file: every rule of the format has been checked.
struct SafetensorsHeader {
  struct Entry {
    let tensor: TensorInfo
    /// Offsets from the end of the header.
    let begin: Int
    let end: Int
  }

  /// In the order of their data.
  private(set) var entries: [Entry] = []
  private(set) var metadata: CheckpointMetadata = [:]

  static let metadataName = "__metadata__"

  /// Decodes the header of the file at `path`, behind which `dataByteCount` bytes follow.
  init(decoding bytes: UnsafeRawBufferPointer, dataByteCount: Int, path: String) throws {
    guard bytes.first == UInt8(ascii: "{") else {
      throw CheckpointError.malformed(
        file: path, tensor: nil, reason: "the header does not start with '{'; is it a safetensors file?")
    }
    do {
      try JSONReader.read(bytes) { reader in
        try reader.readObject { reader, name in
          if name == SafetensorsHeader.metadataName {
            metadata = try SafetensorsHeader.readMetadata(&reader, path)
          } else {
            entries.append(
              try SafetensorsHeader.readEntry(&reader, name, dataByteCount: dataByteCount, path))
          }
        }
      }
    } catch let error as JSONError {
      throw CheckpointError.malformed(file: path, tensor: nil, reason: "the header is not valid: \(error)")
    }
    entries.sort { ($0.begin, $0.end) < ($1.begin, $1.end) }
    try checkLayout(dataByteCount: dataByteCount, path)
  }

  /// Checks that the tensors' bytes follow each other without hole or overlap and fill the file.
  private func checkLayout(dataByteCount: Int, _ path: String) throws {
    var end = 0
    var previous: TensorInfo?
    for entry in entries {
      if entry.begin != end {
        let before = previous.map { "the end of tensor '\(escaped($0.name))'" } ?? "the start of the data"
        throw CheckpointError.malformed(
          file: path, tensor: entry.tensor.name,
          reason: entry.begin > end
            ? "a hole of \(entry.begin - end) bytes lies between it and \(before)"
            : "its data starts \(end - entry.begin) bytes before \(before): they overlap")
      }
      end = entry.end
      previous = entry.tensor
    }
    guard end == dataByteCount else {
      throw CheckpointError.malformed(
        file: path, tensor: nil, reason: "the last \(dataByteCount - end) bytes belong to no tensor")
    }
  }

  private static func readMetadata(_ reader: inout JSONReader, _ path: String) throws -> CheckpointMetadata {
    func malformed(_ reason: String) -> CheckpointError {
      .malformed(file: path, tensor: nil, reason: "\(metadataName) \(reason)")
    }
    var metadata: CheckpointMetadata = [:]
    let kind = try reader.nextKind()
    if kind == .null {
      try reader.skipValue()
      return [:]
    }
    guard kind == .object else { throw malformed("is \(kind.rawValue), not an object of strings") }
    try reader.readObject { reader, name in
      let kind = try reader.nextKind()
      guard kind == .string else { throw malformed("maps '\(escaped(name))' to \(kind.rawValue), not to a string") }
      metadata[name] = try reader.readString()
    }
    return metadata
  }

  private static func readEntry(
    _ reader: inout JSONReader, _ name: String, dataByteCount: Int, _ path: String
  ) throws -> Entry {
    func malformed(_ reason: String) -> CheckpointError {
      .malformed(file: path, tensor: name, reason: reason)
    }
    var dtype: DType?
    var shape: [Int]?
    var offsets: [Int]?

    func integers(_ reader: inout JSONReader, _ field: String, maximumCount: Int) throws -> [Int] {
      var values: [Int] = []
      guard try reader.nextKind() == .array else { throw malformed("its \(field) is not an array") }
      try reader.readArray { reader, index in
        guard index < maximumCount else { throw malformed("its \(field) has more than \(maximumCount) entries") }
        guard try reader.nextKind() == .number, let value = try? reader.readInteger() else {
          throw malformed("its \(field) has an entry that is not a 64-bit integer")
        }
        guard value >= 0 else { throw malformed("its \(field) has the negative number \(value)") }
        values.append(Int(value))
      }
      return values
    }

    let kind = try reader.nextKind()
    guard kind == .object else { throw malformed("its record is \(kind.rawValue), not an object") }
    try reader.readObject { reader, field in
      switch field {
      case "dtype":
        guard try reader.nextKind() == .string else { throw malformed("its dtype is not a string") }
        let text = try reader.readString()
        guard let known = DType(rawValue: text) else { throw malformed("its dtype '\(escaped(text))' is unknown") }
        dtype = known
      case "shape": shape = try integers(&reader, field, maximumCount: maximumRank)
      case "data_offsets": offsets = try integers(&reader, field, maximumCount: 2)
      default: throw malformed("its record has the unknown field '\(escaped(field))'")
      }
    }

    guard let dtype else { throw malformed("its dtype is missing") }
    guard let shape else { throw malformed("its shape is missing") }
    guard let offsets else { throw malformed("its data_offsets are missing") }
    guard offsets.count == 2 else { throw malformed("its data_offsets are not two numbers") }
    let (begin, end) = (offsets[0], offsets[1])
    guard begin <= end else { throw malformed("its data begins at \(begin), behind its end at \(end)") }
    guard end <= dataByteCount else {
      throw malformed(
        "its data ends at byte \(end) but the file holds \(dataByteCount) bytes of data; it is cut short or corrupt")
    }
    let tensor = TensorInfo(name: name, dtype: dtype, shape: shape)
    let byteCount = try tensor.checkedByteCount(orThrow: malformed)
    guard byteCount == end - begin else {
      throw malformed(
        "its \(dtype.rawValue) elements of shape \(shape) take \(byteCount) bytes but its data has \(end - begin)")
    }
    return Entry(tensor: tensor, begin: begin, end: end)
  }

  /// More axes than any tensor library knows; a bound on what a hostile header makes us print.
  private static let maximumRank = 64
}
