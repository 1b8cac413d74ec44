import Squeezing

extension Budget: Codable {
  enum CodingKeys: String, RecipeMember {
    case ratio, bond, lossless
    case matrixRatio = "matrix_ratio"
    case maximumError = "max_error"

    var allowed: String {
      switch self {
      case .ratio, .matrixRatio: "a number above 0 and at most 1000"
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
    case .maximumError(let error): try container.encode(error, forKey: .maximumError)
    case .bond(let bond): try container.encode(bond, forKey: .bond)
    case .lossless: try container.encode(true, forKey: .lossless)
    }
  }
}
