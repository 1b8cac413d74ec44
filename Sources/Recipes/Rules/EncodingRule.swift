import Checkpoints
import TensorNetworks

/// What the cores of matrices are stored in, where it is not the dtype of the recipe.
public struct EncodingRule: Sendable, Hashable {
  /// Names of matrices.
  public var glob: String
  /// The cores that are meant; nil for all.
  public var cores: Cores?
  /// What the numbers of these cores are stored as.
  public var encoding: CoreEncoding

  /// Cores of a kind.
  public enum Cores: String, Sendable, Hashable, Codable, CaseIterable {
    /// The central core of each operator.
    case central
    /// All others of its chain.
    case auxiliary
  }

  /// A rule for the matrices that a glob matches; nil for all of their cores.
  public init(glob: String, cores: Cores? = nil, encoding: CoreEncoding) {
    (self.glob, self.cores, self.encoding) = (glob, cores, encoding)
  }
}

/// What the numbers of a core are stored as.
public enum CoreEncoding: Sendable, Hashable {
  /// Floating-point numbers of a dtype.
  case plain(DType)
  /// Integers of a few bits, with a scale for each group of them.
  case integers(IntegerGroups)

  /// What a recipe may say, for messages.
  public static let choices =
    "f64, f32, f16, bf16, or int8, int6, int5, int4, int3 and int2, integers also as int4/64 (in groups of 16, 32, 64 or 128)"
}

extension CoreEncoding: CustomStringConvertible {
  public var description: String {
    switch self {
    case .plain(let dtype): dtype.rawValue.lowercased()
    case .integers(let integers): integers.description
    }
  }

  /// nil for a text that is none of `choices`.
  public init?(_ description: some StringProtocol) {
    if let integers = IntegerGroups(description) {
      self = .integers(integers)
    } else if let dtype = DType(coreName: String(description)) {
      self = .plain(dtype)
    } else {
      return nil
    }
  }
}

extension EncodingRule: Codable {
  enum CodingKeys: String, RecipeMember {
    case glob, cores, encoding

    var allowed: String {
      switch self {
      case .glob: "a glob"
      case .cores: Cores.choices
      case .encoding: CoreEncoding.choices
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let name = try container.decode(String.self, forKey: .encoding)
    guard let encoding = CoreEncoding(name) else {
      throw DecodingError.dataCorruptedError(
        forKey: .encoding, in: container, debugDescription: "\(name) is not allowed")
    }
    self.init(
      glob: try container.decode(.glob, default: "*"), cores: try container.decodeIfPresent(.cores), encoding: encoding)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(glob, forKey: .glob)
    try container.encodeIfPresent(cores, forKey: .cores)
    try container.encode(encoding.description, forKey: .encoding)
  }
}
