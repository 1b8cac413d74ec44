/// Which statistics a conversion used, and how.
public struct StatisticsIdentity: Sendable, Hashable {
  /// Of the statistics file: 64 lower-case hexadecimal digits.
  public var sha256: String
  /// What the file says of itself, or its name; it decides nothing.
  public var description: String?
  /// What is added to the diagonal of the inputs' second moment, relative to its mean; nil for the default.
  public var inputRidge: Double?
  /// The same of the outputs.
  public var outputRidge: Double?

  /// The identity of a statistics file with this SHA-256, and the ridges it is used with.
  public init(sha256: String, description: String? = nil, inputRidge: Double? = nil, outputRidge: Double? = nil) {
    self.sha256 = sha256
    self.description = description
    self.inputRidge = inputRidge
    self.outputRidge = outputRidge
  }

  /// Whether two conversions measure in the same metric, whatever the descriptions are.
  public func isSameMetric(as other: StatisticsIdentity) -> Bool {
    sha256 == other.sha256 && inputRidge == other.inputRidge && outputRidge == other.outputRidge
  }
}

extension StatisticsIdentity: Codable {
  enum CodingKeys: String, RecipeMember {
    case sha256 = "statistics_sha256"
    case description
    case inputRidge = "input_ridge"
    case outputRidge = "output_ridge"

    var allowed: String {
      switch self {
      case .sha256: "the SHA-256 of the statistics file, 64 hexadecimal digits"
      case .description: "text"
      case .inputRidge, .outputRidge: "a number of at least 0"
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let digits = try container.decode(String.self, forKey: .sha256).lowercased()
    guard digits.utf8.count == 64, digits.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }) else {
      throw DecodingError.dataCorruptedError(forKey: .sha256, in: container, debugDescription: digits)
    }
    self.init(
      sha256: digits, description: try container.decodeIfPresent(.description),
      inputRidge: try container.decodeIfPresent(.inputRidge) { $0 >= 0 && $0.isFinite },
      outputRidge: try container.decodeIfPresent(.outputRidge) { $0 >= 0 && $0.isFinite })
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(sha256, forKey: .sha256)
    try container.encodeIfPresent(description, forKey: .description)
    try container.encodeIfPresent(inputRidge, forKey: .inputRidge)
    try container.encodeIfPresent(outputRidge, forKey: .outputRidge)
  }
}
