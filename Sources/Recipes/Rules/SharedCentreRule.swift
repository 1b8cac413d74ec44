/// Matrices of one shape whose chains have one central core for all of them, and auxiliary cores of their own.
public struct SharedCentreRule: Sendable, Hashable {
  /// The matrices. Where the first star stands for a number in some names, that is the layer's, and others are not meant.
  public var glob: String
  /// How many central cores there are: the layers are divided into as many runs.
  public var centres = 1

  /// The rank of what is added to each matrix of what the shared core leaves of it; nil for nothing.
  public var residualRank: Int?

  /// A rule for the matrices that a glob matches.
  public init(glob: String, centres: Int = 1, residualRank: Int? = nil) {
    (self.glob, self.centres, self.residualRank) = (glob, centres, residualRank)
  }
}

extension SharedCentreRule: Codable {
  enum CodingKeys: String, RecipeMember {
    case glob, centres
    case residualRank = "residual_rank"

    var allowed: String {
      switch self {
      case .glob: "a glob"
      case .centres, .residualRank: "a whole number of at least 1"
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init(
      glob: try container.decode(String.self, forKey: .glob),
      centres: try container.decode(.centres, default: 1) { $0 >= 1 },
      residualRank: try container.decodeIfPresent(.residualRank) { $0 >= 1 })
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(glob, forKey: .glob)
    try container.encode(centres, forKey: .centres)
    try container.encodeIfPresent(residualRank, forKey: .residualRank)
  }
}
