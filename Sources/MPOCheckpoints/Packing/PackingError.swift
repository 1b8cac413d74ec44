/// Why a packed entry can't be unpacked. The messages lack the entry's name: who knows it adds it.
package enum PackingError: Error, Equatable, CustomStringConvertible {
  /// The sizes in the table do not add up to the entry.
  case sizes(found: Int, expected: Int)
  /// A plane would be stored in no bytes, or in more than it has.
  case planeSize(block: Int, plane: Int, found: Int, limit: Int)
  /// What is stored of a plane is not the deflated form of so many bytes.
  case notDeflated(block: Int, plane: Int, expected: Int)
  /// A block is not what was packed.
  case checksum(block: Int, found: UInt32, expected: UInt32)
  /// zlib has no memory left.
  case outOfMemory

  package var description: String {
    switch self {
    case .sizes(let found, let expected):
      "is packed in \(expected) bytes, its table adds up to \(found): it is damaged; convert the model again"
    case .planeSize(let block, let plane, let found, let limit):
      "has \(found) bytes for plane \(plane) of block \(block), which can have 1 to \(limit): it is damaged; "
        + "convert the model again"
    case .notDeflated(let block, let plane, let expected):
      "plane \(plane) of block \(block) can't be inflated to \(expected) bytes: it is damaged; convert the model again"
    case .checksum(let block, let found, let expected):
      "block \(block) has the CRC-32 \(String(found, radix: 16)), the table says \(String(expected, radix: 16)): "
        + "it is damaged; convert the model again"
    case .outOfMemory: "can't be packed or unpacked: there is no memory left"
    }
  }
}
