import Checkpoints
import Files
import TensorNetworks

/// An array as it is stored: a dense tensor, or a core.
public protocol StoredArray: Sendable {
  /// The name of the tensor or of the core.
  var name: String { get }
  /// Of the whole array.
  var shape: [Int] { get }
  /// How its elements are kept.
  var encoding: ArrayEncoding { get }
  /// Its entries that are stored packed; the writer fills it in.
  var packed: [PackedEntry] { get }
}

extension StoredArray {
  /// The entries in the shards, unpacked.
  public var entries: [TensorInfo] { encoding.entries(of: name, shape: shape) }

  /// The same as the shards have them.
  public var storedEntries: [TensorInfo] {
    let packed = Dictionary(packed.map { (TensorName($0.name), $0.stored) }, uniquingKeysWith: { first, _ in first })
    return entries.map { packed[$0.key] ?? $0 }
  }

  /// The room it takes in the shards.
  public var storedBytes: Int { storedEntries.reduce(0) { $0 + $1.byteCount } }

  /// The values that are stored; neither scales nor pivots are counted.
  public var valueCount: Int { encoding.valueCount(of: shape) }

  /// Why the packed entries can't be those of the array; nil when they can.
  var packedProblem: String? {
    var rest = Dictionary(entries.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    for entry in packed {
      guard let expected = rest.removeValue(forKey: TensorName(entry.name)) else {
        return "'\(escaped(entry.name))' is not an entry of '\(escaped(name))', or is packed twice"
      }
      guard (expected.dtype, expected.shape) == (entry.dtype, entry.shape) else {
        return "'\(escaped(entry.name))' unpacks to \(entry.dtype.rawValue) \(entry.shape), not "
          + "\(expected.dtype.rawValue) \(expected.shape)"
      }
    }
    return nil
  }
}

/// What the manifest says of one core: an array that operators name.
public struct CoreRecord: StoredArray, Sendable, Equatable {
  /// What a core is in the operators that name it.
  public enum Role: String, Sendable, Hashable, Codable {
    /// The local tensor that carries the weight, `[d, i, j, d']`.
    case central
    /// Another local tensor, `[d, i, j, d']`.
    case auxiliary
    /// The singular values at the central bond, `[d]`.
    case singularValues = "singular_values"
    /// An orthogonal matrix for the rows or columns, `[n, n]`.
    case basis
    /// A permutation of rows or columns, `[n]`.
    case permutation
    /// Factors of rows or columns, `[n]`.
    case scale
  }

  /// The name of the core, which operators and entries use.
  public let name: String
  /// What it is in the operators that name it.
  public let role: Role
  public let shape: [Int]
  /// How its elements are kept.
  public let encoding: ArrayEncoding
  public internal(set) var packed: [PackedEntry] = []

  /// Whether lightweight fine-tuning trains it.
  var isTrained: Bool {
    if case .grouped = encoding.values { return false }
    return role == .auxiliary
  }

  /// A core of this shape, not packed.
  public init(name: String, role: Role, shape: [Int], encoding: ArrayEncoding) {
    self.name = name
    self.role = role
    self.shape = shape
    self.encoding = encoding
  }
}

extension CoreRecord: Codable {
  enum CodingKeys: String, CodingKey { case name, role, shape, encoding, packed }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    func invalid(_ key: CodingKeys, _ reason: String) -> DecodingError {
      DecodingError.dataCorruptedError(forKey: key, in: container, debugDescription: reason)
    }
    name = try container.decode(String.self, forKey: .name)
    role = try container.decode(Role.self, forKey: .role)
    shape = try container.decode([Int].self, forKey: .shape)
    encoding = try container.decode(ArrayEncoding.self, forKey: .encoding)
    packed = try container.decodeIfPresent([PackedEntry].self, forKey: .packed) ?? []
    let axes =
      switch role {
      case .central, .auxiliary: 4
      case .basis: 2
      case .singularValues, .permutation, .scale: 1
      }
    guard shape.count == axes, shape.allSatisfy({ $0 > 0 }), let count = shape.productOfSizes, count <= Int.max / 64,
      role != .basis || shape[0] == shape[1]
    else { throw invalid(.shape, "\(shape) is not the shape of a core with the role \(role.rawValue)") }
    if let problem = encoding.problem(role: role, shape: shape) { throw invalid(.encoding, problem) }
    if let problem = packedProblem { throw invalid(.packed, problem) }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode(role, forKey: .role)
    try container.encode(shape, forKey: .shape)
    try container.encode(encoding, forKey: .encoding)
    if !packed.isEmpty { try container.encode(packed, forKey: .packed) }
  }
}

extension [Int] {
  /// The product of sizes from outside; nil for negative ones and on overflow.
  var productOfSizes: Int? {
    var result = 1
    for size in self {
      guard size >= 0 else { return nil }
      let (product, overflow) = result.multipliedReportingOverflow(by: size)
      if overflow { return nil }
      result = product
    }
    return result
  }
}
