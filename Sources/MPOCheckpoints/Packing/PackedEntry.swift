import Checkpoints

/// What the manifest says of an entry that is stored packed: shuffled and deflated, in blocks.
///
/// The entry is a table and then the blocks. A block is `blockBytes` of the elements (the last one shorter), shuffled:
/// the first bytes of its elements, the second bytes, …: its *planes*. The table has a row for each block: the stored
/// size of every plane and the CRC-32 of the block as it was, each 32 bits, little-endian. A plane of its own size is
/// stored as it is, a smaller one deflated (RFC 1951, without a header).
public struct PackedEntry: Sendable, Equatable, Codable {
  /// The name of the only codec: byte-shuffled and deflated in blocks.
  public static let codec = "shuffle-deflate"
  package static let defaultBlockBytes = 256 << 10
  static let maximumBlockBytes = 16 << 20

  /// The entry's name, and what it holds when it is unpacked.
  public let name: String
  /// The type of its elements, unpacked.
  public let dtype: DType
  /// Its shape, unpacked.
  public let shape: [Int]
  /// The size of a block but the last, unpacked.
  public let blockBytes: Int
  /// The size of the entry as it is stored.
  public let bytes: Int
  private let codec: String

  enum CodingKeys: String, CodingKey {
    case name, codec, dtype, shape, bytes
    case blockBytes = "block_bytes"
  }

  init(_ entry: TensorInfo, blockBytes: Int, bytes: Int) {
    codec = Self.codec
    name = entry.name
    dtype = entry.dtype
    shape = entry.shape
    self.blockBytes = blockBytes
    self.bytes = bytes
  }

  /// - Throws: `DecodingError` for what no entry can be packed to.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    func invalid(_ key: CodingKeys, _ reason: String) -> DecodingError {
      DecodingError.dataCorruptedError(forKey: key, in: container, debugDescription: reason)
    }
    codec = try container.decode(String.self, forKey: .codec)
    guard codec == Self.codec else {
      throw invalid(.codec, "'\(codec)' is unknown; this mpo unpacks '\(Self.codec)': update it")
    }
    name = try container.decode(String.self, forKey: .name)
    dtype = try container.decode(DType.self, forKey: .dtype)
    shape = try container.decode([Int].self, forKey: .shape)
    guard let count = shape.productOfSizes, count <= Int.max / 64 else {
      throw invalid(.shape, "\(shape) is not the shape of a tensor")
    }
    blockBytes = try container.decode(Int.self, forKey: .blockBytes)
    guard blockBytes >= 8, blockBytes <= Self.maximumBlockBytes, blockBytes.isMultiple(of: 8) else {
      throw invalid(.blockBytes, "must be a multiple of 8 from 8 to \(Self.maximumBlockBytes), not \(blockBytes)")
    }
    bytes = try container.decode(Int.self, forKey: .bytes)
    guard bytes < unpackedBytes, bytes > tableBytes else {
      throw invalid(.bytes, "\(bytes) can't be the packed size of \(unpackedBytes) bytes")
    }
    // Deflate makes 258 bytes of two bits at best.
    guard bytes - tableBytes >= unpackedBytes / 1032 else {
      throw invalid(.bytes, "\(bytes) packed bytes are too few for the \(unpackedBytes) of \(dtype.rawValue) \(shape)")
    }
  }

  /// The entry as the shards have it.
  var stored: TensorInfo { TensorInfo(name: name, dtype: .u8, shape: [bytes]) }
  var unpacked: TensorInfo { TensorInfo(name: name, dtype: dtype, shape: shape) }
  var unpackedBytes: Int { unpacked.byteCount }
  package var layout: PackedLayout { PackedLayout(of: unpacked, blockBytes: blockBytes) }
  private var tableBytes: Int { layout.tableBytes }
}

/// How an entry is cut into blocks and planes.
package struct PackedLayout: Sendable, Equatable {
  /// Unpacked.
  let byteCount: Int
  let blockBytes: Int
  /// Bytes of an element, the number of planes; 1 for elements of less than a byte.
  let elementSize: Int

  init(of entry: TensorInfo, blockBytes: Int) {
    byteCount = entry.byteCount
    self.blockBytes = blockBytes
    elementSize = max(1, entry.dtype.bitWidth / 8)
  }

  package var blockCount: Int { byteCount / blockBytes + (byteCount % blockBytes == 0 ? 0 : 1) }
  /// The size of a row of the table.
  var rowBytes: Int { (elementSize + 1) * 4 }
  package var tableBytes: Int { blockCount * rowBytes }

  /// The bytes of a block, unpacked.
  package func range(ofBlock block: Int) -> Range<Int> {
    block * blockBytes..<min(byteCount, (block + 1) * blockBytes)
  }
}
