import TensorNetworks

/// Which tensors of a checkpoint are decomposed, and over which sites.
public struct TensorSelection: Sendable, Hashable {
  /// Both sides of a matrix must have it, unless `include` names the matrix.
  public static let minimumSide = 64

  /// When not empty, only matrices that one of the globs matches.
  public var include: [String] = []
  /// Never matrices that one of the globs matches.
  public var exclude: [String] = []
  /// Whether convolution kernels of any rank are decomposed too, as matrices `out × (in·k…)`.
  public var convolutions = false
  /// Whether tensors of rank 3 are stacks of matrices, as the experts of a mixture are; nil: those whose name or whose
  /// model's configuration says so.
  public var experts: Bool?
  /// n, for matrices without a shape of their own.
  public var sites = 5
  /// Factors for the matrices that a glob matches; the last that matches wins.
  public var shapes: [ShapeRule] = []

  /// All matrices that are decomposed by default, split as by default.
  public init() {}

  /// Factors for the matrices that a glob matches.
  public struct ShapeRule: Sendable, Hashable {
    /// Names of matrices.
    public var glob: String
    /// The shape of their operators.
    public var shape: MPOShape

    /// A rule that gives the matrices that a glob matches this shape.
    public init(glob: String, shape: MPOShape) {
      self.glob = glob
      self.shape = shape
    }
  }
}

extension TensorSelection: Codable {
  enum CodingKeys: String, RecipeMember {
    case include, exclude, convolutions, experts, sites, shapes

    var allowed: String {
      switch self {
      case .include, .exclude: "a list of globs"
      case .convolutions, .experts: "true or false"
      case .sites: "a whole number from 2 to 16"
      case .shapes:
        "a list of mappings of glob, row_factors and column_factors, whose factors are lists of equal length"
      }
    }

    var members: (any RecipeMember.Type)? { self == .shapes ? ShapeRule.CodingKeys.self : nil }
  }

  /// Absent members have their defaults.
  public init(from decoder: any Decoder) throws {
    self.init()
    let container = try decoder.container(keyedBy: CodingKeys.self)
    include = try container.decode(.include, default: include)
    exclude = try container.decode(.exclude, default: exclude)
    convolutions = try container.decode(.convolutions, default: convolutions)
    experts = try container.decodeIfPresent(.experts)
    sites = try container.decode(.sites, default: sites) { (2...16).contains($0) }
    shapes = try container.decode(.shapes, default: shapes)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(include, forKey: .include)
    try container.encode(exclude, forKey: .exclude)
    try container.encode(convolutions, forKey: .convolutions)
    try container.encodeIfPresent(experts, forKey: .experts)
    try container.encode(sites, forKey: .sites)
    try container.encode(shapes, forKey: .shapes)
  }
}

extension TensorSelection.ShapeRule: Codable {
  enum CodingKeys: String, RecipeMember {
    case glob
    case rowFactors = "row_factors"
    case columnFactors = "column_factors"

    var allowed: String {
      switch self {
      case .glob: "a glob"
      case .rowFactors, .columnFactors: "a list of factors of at least 1, as many as of the other side"
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    glob = try container.decode(String.self, forKey: .glob)
    let rows = try container.decode([Int].self, forKey: .rowFactors)
    let columns = try container.decode([Int].self, forKey: .columnFactors)
    do {
      shape = try MPOShape(rowFactors: rows, columnFactors: columns)
      guard !shape.isDeep else { throw MPOShapeError.emptySite(index: 1) }
    } catch {
      throw DecodingError.dataCorruptedError(forKey: .rowFactors, in: container, debugDescription: "\(error)")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(glob, forKey: .glob)
    try container.encode(shape.rowFactors, forKey: .rowFactors)
    try container.encode(shape.columnFactors, forKey: .columnFactors)
  }
}
