import Crypto
import Foundation

/// The SHA-256 of some bytes as hexadecimal digits.
func sha256(_ bytes: [UInt8]) -> String { SHA256.hash(data: Data(bytes)).map(hexadecimal).joined() }

/// A byte as two digits.
func hexadecimal(_ byte: UInt8) -> String {
  let text = String(byte, radix: 16)
  return text.count == 1 ? "0" + text : text
}
