/// Matrices that may become ranges of one operator, the core on the side that they share stored once.
public struct LinkRule: Sendable, Hashable {
  /// Names of matrices, with braces around what linked ones differ in: `layers.*.{q,k}_proj.weight`. What the stars stand for
  /// they have in common. With `layers` the first star stands for the number of the layer instead; names in which it
  /// stands for anything else are not meant.
  public var glob: String
  /// How many neighbouring layers are linked; nil: the matrices that differ in the braces.
  public var layers: Int?
  /// The side that they share; nil: the inputs where all have as many, else the outputs.
  public var shares: Side?

  /// A side of a layer's matrix, whichever axis of the tensor it is.
  public enum Side: String, Sendable, Hashable, Codable, CaseIterable {
    /// What the layer reads.
    case inputs
    /// What the layer computes.
    case outputs
  }

  /// A rule for the matrices that a glob with braces or wildcards matches.
  public init(glob: String, layers: Int? = nil, shares: Side? = nil) {
    (self.glob, self.layers, self.shares) = (glob, layers, shares)
  }
}

extension LinkRule: Codable {
  enum CodingKeys: String, RecipeMember {
    case glob, layers, shares

    var allowed: String {
      switch self {
      case .glob: "a glob, with braces around what linked matrices differ in"
      case .layers: "a whole number of at least 2"
      case .shares: Side.choices
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init(
      glob: try container.decode(String.self, forKey: .glob),
      layers: try container.decodeIfPresent(.layers) { $0 >= 2 }, shares: try container.decodeIfPresent(.shares))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(glob, forKey: .glob)
    try container.encodeIfPresent(layers, forKey: .layers)
    try container.encodeIfPresent(shares, forKey: .shares)
  }
}
