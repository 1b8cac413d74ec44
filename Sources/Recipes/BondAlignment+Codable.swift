import Squeezing

extension BondAlignment: Codable {
  /// `auto` or the number.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let number = try? container.decode(Int.self), Self.allowed.contains(number) {
      self = .multiples(of: number)
    } else if (try? container.decode(String.self)) == "auto" {
      self = .auto
    } else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "is not allowed")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .auto: try container.encode("auto")
    case .multiples(let number): try container.encode(number)
    }
  }
}
