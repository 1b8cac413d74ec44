import Squeezing

extension Budget: Codable {
  enum CodingKeys: String, RecipeMember {
    case ratio, bond, lossless, bytes
    case matrixBytes = "matrix_bytes"
    case matrixRatio = "matrix_ratio"
    case maximumError = "max_error"

    var allowed: String {
      switch self {
      case .ratio, .matrixRatio: "a number above 0 and at most 1000"
      case .bytes, .matrixBytes: "a number above 0 and at most 1000, the part of the source's bytes, or a size as 60MB"
      case .maximumError: "a number between 0 and 1"
      case .bond: "a whole number of at least 1"
      case .lossless: "true"
      }
    }
  }

  /// A mapping of one member.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    var found: [Budget] = []
    if let ratio: Double = try container.decodeIfPresent(.ratio, where: { $0 > 0 && $0 <= 1e3 }) {
      found.append(.ratio(ratio))
    }
    if let ratio: Double = try container.decodeIfPresent(.matrixRatio, where: { $0 > 0 && $0 <= 1e3 }) {
      found.append(.matrixRatio(ratio))
    }
    if let limit: ByteLimit = try container.decodeIfPresent(.bytes) { found.append(.bytes(limit)) }
    if let limit: ByteLimit = try container.decodeIfPresent(.matrixBytes) { found.append(.matrixBytes(limit)) }
    if let error: Double = try container.decodeIfPresent(.maximumError, where: { $0 > 0 && $0 < 1 }) {
      found.append(.maximumError(error))
    }
    if let bond: Int = try container.decodeIfPresent(.bond, where: { $0 >= 1 }) { found.append(.bond(bond)) }
    if let _: Bool = try container.decodeIfPresent(.lossless, where: { $0 }) { found.append(.lossless) }
    guard found.count == 1 else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "\(found.count) budgets"))
    }
    self = found[0]
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    switch self {
    case .ratio(let ratio): try container.encode(ratio, forKey: .ratio)
    case .matrixRatio(let ratio): try container.encode(ratio, forKey: .matrixRatio)
    case .bytes(let limit): try container.encode(limit, forKey: .bytes)
    case .matrixBytes(let limit): try container.encode(limit, forKey: .matrixBytes)
    case .maximumError(let error): try container.encode(error, forKey: .maximumError)
    case .bond(let bond): try container.encode(bond, forKey: .bond)
    case .lossless: try container.encode(true, forKey: .lossless)
    }
  }
}

extension Budget.ByteLimit {
  private static let units: [(name: String, bytes: Double)] = [
    ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("KiB", 0x1p10), ("MiB", 0x1p20), ("GiB", 0x1p30),
    ("TiB", 0x1p40), ("B", 1),
  ]

  /// A share as `0.3`, or a size as `60MB`, `1.5GiB` or `60000000B`; nil for anything else.
  public init?(_ text: String) {
    for unit in Self.units where text.lowercased().hasSuffix(unit.name.lowercased()) {
      guard let number = Double(text.dropLast(unit.name.utf8.count)), number > 0, number * unit.bytes <= 0x1p60 else {
        return nil
      }
      self = .count(Int((number * unit.bytes).rounded(.down)))
      return
    }
    guard let share = Double(text), share > 0, share <= 1e3 else { return nil }
    self = .share(share)
  }
}

extension Budget.ByteLimit: Codable {
  /// A number is a share, a text a size.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text =
      if let share = try? container.decode(Double.self) { "\(share)" } else { try container.decode(String.self) }
    guard let limit = Self(text) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "\(text) is not allowed")
    }
    self = limit
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .share(let share): try container.encode(share)
    case .count(let count): try container.encode("\(count)B")
    }
  }
}
