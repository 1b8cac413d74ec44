/// Integers of a few bits that stand for the numbers of a matrix, with one scale for each group of neighbours in a row:
/// `number = (code − zero) · scale`, for codes `0 … 2^bits − 1`.
///
/// The grid of 4 bits and more contains zero. That of 3 and 2 bits is symmetric instead: of so few levels none is to be lost on
/// one side.
public struct IntegerGroups: Sendable, Hashable {
  /// 2, 3, 4, 5, 6 or 8.
  public let bits: Int
  /// How many neighbours have one scale: 16, 32, 64 or 128. The last group of a row may be shorter.
  public let group: Int

  /// The numbers of bits that there are, most first.
  public static let bitChoices = [8, 6, 5, 4, 3, 2]
  /// The lengths of groups that there are.
  public static let groupChoices = [16, 32, 64, 128]
  /// Of a scale, in half precision.
  public static let scaleBits = 16

  /// nil for bits and groups that are none of the choices.
  public init?(bits: Int, group: Int = 32) {
    guard Self.bitChoices.contains(bits), Self.groupChoices.contains(group) else { return nil }
    (self.bits, self.group) = (bits, group)
  }

  /// The number of a code at the scale 1 is `code − zero`.
  public var zero: Float { bits >= 4 ? Float(1 << (bits - 1)) : Float((1 << bits) - 1) / 2 }

  /// Codes are `0 … largestCode`.
  public var largestCode: Int { (1 << bits) - 1 }

  /// The columns of the matrix that values of a shape are seen as: those of the shortest unfolding whose rows fill the smallest group,
  /// else all of them in a row.
  public static func columns(of shape: [Int]) -> Int {
    var columns = 1
    for size in shape.reversed() {
      columns *= size
      if columns >= groupChoices[0] { break }
    }
    return columns
  }

  /// How many scales a row of a matrix has.
  public func scaleCount(columns: Int) -> Int { (columns + group - 1) / group }

  /// The bytes of a row of codes.
  public func rowBytes(columns: Int) -> Int { (columns * bits + 7) / 8 }

  /// The bytes of a matrix, scales included.
  public func byteCount(rows: Int, columns: Int) -> Int {
    rows * (rowBytes(columns: columns) + scaleCount(columns: columns) * Self.scaleBits / 8)
  }
}

extension IntegerGroups: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let integers = IntegerGroups(text) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "'\(text)' is not a known encoding of integers")
    }
    self = integers
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

extension IntegerGroups: CustomStringConvertible {
  /// `int4` for groups of 32, `int4/64` for others.
  public var description: String { "int\(bits)" + (group == 32 ? "" : "/\(group)") }

  /// nil for a text that is none.
  public init?(_ description: some StringProtocol) {
    let parts = description.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts[0].hasPrefix("int"), let bits = Int(parts[0].dropFirst(3)) else { return nil }
    guard parts.count == 2 else {
      self.init(bits: bits)
      return
    }
    guard let group = Int(parts[1]) else { return nil }
    self.init(bits: bits, group: group)
  }
}
