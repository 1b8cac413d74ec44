/// Which space sides of matrices belong to: chains share a basis for all sides of one space.
public struct SpaceRule: Sendable, Hashable {
  /// Names of matrices.
  public var glob: String
  /// The side of the layer that is meant, whichever axis of the tensor it is; nil for both.
  public var side: LinkRule.Side?
  /// The name of the space: sides of one name and size share an orthogonal matrix. `stream` is the residual stream, with one
  /// for the inputs, which read it, and one for the outputs, which are written to it; `own` shares nothing.
  public var space: String

  /// The space that shares nothing: an order of the side's own neurons.
  public static let own = "own"
  /// The residual stream.
  public static let stream = "stream"

  /// A rule for one side, or both, of the matrices that a glob matches.
  public init(glob: String, side: LinkRule.Side? = nil, space: String) {
    (self.glob, self.side, self.space) = (glob, side, space)
  }

  /// Whether a space may be called so.
  public static func isName(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.count <= 64
      && text.unicodeScalars.allSatisfy {
        $0.isASCII && ($0.properties.isAlphabetic || "0123456789_-.".contains(Character($0)))
      }
  }
}

extension SpaceRule: Codable {
  enum CodingKeys: String, RecipeMember {
    case glob, side, space

    var allowed: String {
      switch self {
      case .glob: "a glob"
      case .side: LinkRule.Side.choices
      case .space: "stream, own, or a name of letters, digits, '.', '_' and '-'"
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init(
      glob: try container.decode(String.self, forKey: .glob), side: try container.decodeIfPresent(.side),
      space: try container.decodeIfPresent(.space, where: Self.isName) ?? Self.stream)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(glob, forKey: .glob)
    try container.encodeIfPresent(side, forKey: .side)
    try container.encode(space, forKey: .space)
  }
}
