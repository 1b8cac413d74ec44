import Foundation
import Testing

@testable import Checkpoints

/// The bytes of a safetensors file with this header and `dataByteCount` bytes behind it.
func safetensorsBytes(header: String, dataByteCount: Int = 0) -> [UInt8] {
  safetensorsBytes(header: Array(header.utf8), dataByteCount: dataByteCount)
}

func safetensorsBytes(header: [UInt8], dataByteCount: Int = 0, length: UInt64? = nil) -> [UInt8] {
  withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) { Array($0) } + header
    + (0..<dataByteCount).map { UInt8(truncatingIfNeeded: $0) }
}

extension DenseCheckpoint {
  /// The tensor's bytes as an array.
  func bytes(of name: String) throws -> [UInt8] {
    let found = tensor(named: name)
    let tensor = try #require(found)
    return try withBytes(of: tensor) { Array($0) }
  }
}
