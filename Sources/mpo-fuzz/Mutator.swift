import TestSupport

/// Makes damaged inputs out of good ones; the same ones for the same seed.
struct Mutator {
  private var generator: SeededGenerator
  private let seeds: [[UInt8]]

  /// - Parameter seeds: the good inputs, at least one.
  init(_ seeds: [[UInt8]], seed: UInt64) {
    self.seeds = seeds
    generator = SeededGenerator(seed: seed)
  }

  /// What JSON and headers are made of, and numbers at which arithmetic goes wrong.
  static let tokens = [
    "0", "-1", "1", "2", "1e308", "-0", "0.5", "4294967296", "2147483648", "9223372036854775807",
    "18446744073709551616",
    "4611686018427387904", "[", "]", "{", "}", ",", ":", "\"", "null", "true", "[]", "{}", "\\u0000", "\\ud800", "\\n",
    "\"F32\"", "\"F64\"", "\"I8\"", "\"BF16\"", "\"U8\"", "\"mpo\"", "\"dense\"", "\"tied\"", "\"plain\"", "\"scaled\"",
    "\"left\"", "\"right\"", "\"compact\"", "\"spectral\"", "\"permutation\"", "\"basis\"", "\"scale\"",
    "\"row_basis\":", "\"pivots\":", "../", "/dev/zero",
    "\u{202E}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "tensors.safetensors", "\u{0}",
  ].map { Array($0.utf8) }
  private static let numbers: [UInt64] = [
    0, 1, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 100_000_000, 100_000_001, 1 << 62, .max, .max - 7,
  ]

  /// One of the good inputs, changed in a few places.
  mutating func next() -> [UInt8] {
    var bytes = element(of: seeds)
    let other = element(of: seeds)
    for _ in 0..<Int.random(in: 1...6, using: &generator) { change(&bytes, other) }
    return bytes
  }

  private mutating func element<Element>(of elements: [Element]) -> Element {
    elements[Int.random(in: elements.indices, using: &generator)]
  }

  private mutating func change(_ bytes: inout [UInt8], _ other: [UInt8]) {
    guard !bytes.isEmpty else {
      bytes = other
      return
    }
    let place = Int.random(in: 0..<bytes.count, using: &generator)
    let count = min(
      bytes.count - place, Int.random(in: 1...(Bool.random(using: &generator) ? 8 : 200), using: &generator))
    switch Int.random(in: 0..<11, using: &generator) {
    case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
    case 1: bytes[place] = UInt8.random(in: 0...255, using: &generator)
    case 2:
      let value = element(of: Self.numbers)
      let width = element(of: [1, 2, 4, 8])
      for index in 0..<width where place + index < bytes.count {
        bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
      }
    case 3:
      let from = Int.random(in: 0...bytes.count - count, using: &generator)
      bytes.replaceSubrange(place..<place + count, with: Array(bytes[from..<from + count]))
    case 4: for index in place..<place + count { bytes[index] = 0 }
    case 5: bytes.removeSubrange(place..<place + count)
    case 6: bytes.insert(contentsOf: Array(bytes[place..<place + count]), at: place)
    case 7: bytes.insert(contentsOf: element(of: Self.tokens), at: place)
    case 8, 9:
      // Another token in place of the word or number that is there.
      var end = place
      while end < bytes.count, Self.isWord(bytes[end]) { end += 1 }
      var start = place
      while start > 0, Self.isWord(bytes[start - 1]) { start -= 1 }
      bytes.replaceSubrange(start..<end, with: element(of: Self.tokens))
    default:
      let cut = other.isEmpty ? 0 : Int.random(in: 0..<other.count, using: &generator)
      bytes = Array(bytes[..<place] + other[cut...])
    }
  }

  private static func isWord(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x2D
  }
}
