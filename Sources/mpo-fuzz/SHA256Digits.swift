import Crypto
import Files
import Foundation

/// The SHA-256 of some bytes as hexadecimal digits.
func sha256(_ bytes: [UInt8]) -> String { hexadecimal(SHA256.hash(data: Data(bytes))) }
