/// Makes damaged inputs out of good ones; the same ones for the same seed.
struct Mutator: RandomNumberGenerator {
  private var state: UInt64
  /// Whether inputs keep their length.
  private let keepsLength: Bool
  private let tokens: [[UInt8]]

  init(seed: UInt64, keepsLength: Bool) {
    state = seed
    self.keepsLength = keepsLength
    tokens = Self.texts.map { Array($0.utf8) }
  }

  /// SplitMix64.
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// What JSON and headers are made of, and numbers at which arithmetic goes wrong.
  private static let texts = [
    "0", "-1", "1", "2", "1e308", "-0", "0.5", "4294967296", "2147483648", "9223372036854775807",
    "18446744073709551616",
    "4611686018427387904", "[", "]", "{", "}", ",", ":", "\"", "null", "true", "[]", "{}", "\\u0000", "\\ud800", "\\n",
    "\"F32\"", "\"F64\"", "\"I8\"", "\"BF16\"", "\"U8\"", "\"mpo\"", "\"dense\"", "\"tied\"", "../", "/dev/zero",
    "\u{202E}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "tensors.safetensors", "\u{0}",
  ]
  private static let numbers: [UInt64] = [
    0, 1, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 100_000_000, 100_000_001, 1 << 62, .max, .max - 7,
  ]

  /// Changes an input in a few places.
  mutating func mutate(_ input: [UInt8], other: [UInt8]) -> [UInt8] {
    var bytes = input
    for _ in 0..<Int.random(in: 1...6, using: &self) { change(&bytes, other) }
    return bytes
  }

  private mutating func change(_ bytes: inout [UInt8], _ other: [UInt8]) {
    guard !bytes.isEmpty else {
      if !keepsLength { bytes = other }
      return
    }
    let place = Int.random(in: 0..<bytes.count, using: &self)
    let count = min(bytes.count - place, Int.random(in: 1...(Bool.random(using: &self) ? 8 : 200), using: &self))
    switch Int.random(in: 0..<(keepsLength ? 5 : 11), using: &self) {
    case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &self)
    case 1: bytes[place] = UInt8.random(in: 0...255, using: &self)
    case 2:
      let value = Self.numbers[Int.random(in: 0..<Self.numbers.count, using: &self)]
      let width = [1, 2, 4, 8][Int.random(in: 0..<4, using: &self)]
      for index in 0..<width where place + index < bytes.count {
        bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
      }
    case 3:
      let from = Int.random(in: 0...bytes.count - count, using: &self)
      bytes.replaceSubrange(place..<place + count, with: Array(bytes[from..<from + count]))
    case 4: for index in place..<place + count { bytes[index] = 0 }
    case 5: bytes.removeSubrange(place..<place + count)
    case 6: bytes.insert(contentsOf: Array(bytes[place..<place + count]), at: place)
    case 7: bytes.insert(contentsOf: tokens[Int.random(in: 0..<tokens.count, using: &self)], at: place)
    case 8, 9:
      // Another token in place of the word or number that is there.
      var end = place
      while end < bytes.count, Self.isWord(bytes[end]) { end += 1 }
      var start = place
      while start > 0, Self.isWord(bytes[start - 1]) { start -= 1 }
      bytes.replaceSubrange(start..<end, with: tokens[Int.random(in: 0..<tokens.count, using: &self)])
    default:
      let cut = other.isEmpty ? 0 : Int.random(in: 0..<other.count, using: &self)
      bytes = Array(bytes[..<place] + other[cut...])
    }
  }

  private static func isWord(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x2D
  }
}
