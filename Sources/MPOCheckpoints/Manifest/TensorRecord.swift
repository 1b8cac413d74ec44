import Checkpoints
import TensorNetworks

/// What the manifest says of one tensor of the source.
public struct TensorRecord: Sendable, Equatable {
  /// The tensor's name in the source.
  public let name: String
  /// Of the source, and of what is restored.
  public let dtype: DType
  /// The sizes of its axes, row-major.
  public let shape: [Int]
  /// Which side of the matrix is the layer's input; nil for what is not made of operators.
  public let orientation: TensorInfo.Orientation?
  /// How it is stored.
  public var storage: Storage
  /// Whether it belongs to training and not to the model: no total but that of bytes counts it.
  public var isTrainingState = false
  /// The entries of a dense tensor that are stored packed; the writer fills it in.
  public internal(set) var packed: [PackedEntry] = []

  /// How the tensor's elements are kept.
  public enum Storage: Sendable, Equatable {
    /// Under the tensor's name.
    case dense(ArrayEncoding)
    /// Not at all: they are those of another tensor.
    case tied(to: String)
    /// As blocks of operators.
    case blocks(BlockMatrix)
  }

  /// A tensor of the source that is stored in this way.
  public init(
    name: String, dtype: DType, shape: [Int], orientation: TensorInfo.Orientation?, storage: Storage
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.orientation = orientation
    self.storage = storage
  }

  /// A tensor of the source, kept as it is.
  public init(dense tensor: TensorInfo) {
    self.init(
      name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, orientation: tensor.orientation,
      storage: .dense(.plain(tensor.dtype)))
  }

  /// The restored tensor.
  public var info: TensorInfo {
    TensorInfo(name: name, dtype: dtype, shape: shape, orientation: orientation ?? .outputInput)
  }

  /// The blocks, when the tensor is made of operators.
  public var blocks: BlockMatrix? {
    get { if case .blocks(let blocks) = storage { blocks } else { nil } }
    set { if let newValue { storage = .blocks(newValue) } }
  }

  /// Whether it is stored as an array of its own.
  public var isDense: Bool { if case .dense = storage { true } else { false } }

  /// The array that holds a dense tensor.
  public var array: DenseArray? {
    guard case .dense(let encoding) = storage else { return nil }
    return DenseArray(name: name, shape: shape, encoding: encoding, packed: packed)
  }
}

/// A dense tensor as it is stored.
public struct DenseArray: StoredArray {
  /// The tensor's name.
  public let name: String
  public let shape: [Int]
  /// How its elements are kept.
  public let encoding: ArrayEncoding
  public let packed: [PackedEntry]
}

/// A matrix made of operators: blocks stacked along the rows, each a sum of ranges of operators.
public struct BlockMatrix: Sendable, Equatable {
  /// `[I, J]`.
  public let rows: Int
  /// J of the matrix.
  public let columns: Int
  /// The blocks in their order; the terms of a block are added.
  public let blocks: [[Term]]
  /// `‖W−Ŵ‖_F / ‖W‖_F`, measured on what is stored; nil when nobody has measured it since the cores changed.
  public var relativeError: Double?
  /// `‖G^½(W−Ŵ)S^½‖_F / ‖G^½ W S^½‖_F` in the metric of the conversion, measured likewise; nil without a metric.
  public var metricRelativeError: Double?
  /// The Frobenius error of truncated SVD with at most as many numbers.
  public var svdRelativeError: Double?
  /// `‖W‖_F`.
  public var norm: Double?

  /// Rows and columns of an operator.
  public struct Term: Sendable, Hashable {
    /// The name of the operator.
    public let `operator`: String
    /// nil for all of them.
    public let rows: Range<Int>?
    /// The columns of the operator that are used; nil for all.
    public let columns: Range<Int>?

    /// A range of the named operator; nil for all rows, all columns.
    public init(_ name: String, rows: Range<Int>? = nil, columns: Range<Int>? = nil) {
      self.operator = name
      self.rows = rows
      self.columns = columns
    }
  }

  /// A matrix of blocks, each the sum of its terms.
  public init(rows: Int, columns: Int, blocks: [[Term]]) {
    self.rows = rows
    self.columns = columns
    self.blocks = blocks
  }

  /// A matrix that is the whole of one operator.
  public init(whole record: OperatorRecord) {
    self.init(rows: record.rows, columns: record.columns, blocks: [[Term(record.name)]])
  }

  /// The operator whose whole the matrix is; nil for anything else.
  public var wholeOperator: String? {
    guard blocks.count == 1, blocks[0].count == 1, blocks[0][0].rows == nil, blocks[0][0].columns == nil else {
      return nil
    }
    return blocks[0][0].operator
  }

  /// The operators it names, each once, in order.
  public var operators: [String] {
    var seen: Set<TensorName> = []
    return blocks.joined().map(\.operator).filter { seen.insert(TensorName($0)).inserted }
  }
}

extension BlockMatrix.Term: Codable {
  enum CodingKeys: String, CodingKey { case `operator`, rows, columns }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    func range(_ key: CodingKeys) throws -> Range<Int>? {
      guard let ends = try container.decodeIfPresent([Int].self, forKey: key) else { return nil }
      guard ends.count == 2, ends[0] >= 0, ends[0] < ends[1] else {
        throw DecodingError.dataCorruptedError(forKey: key, in: container, debugDescription: "\(ends) is not a range")
      }
      return ends[0]..<ends[1]
    }
    self.init(
      try container.decode(String.self, forKey: .operator), rows: try range(.rows), columns: try range(.columns))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(`operator`, forKey: .operator)
    try container.encodeIfPresent(rows.map { [$0.lowerBound, $0.upperBound] }, forKey: .rows)
    try container.encodeIfPresent(columns.map { [$0.lowerBound, $0.upperBound] }, forKey: .columns)
  }
}

extension TensorRecord: Codable {
  enum CodingKeys: String, CodingKey {
    case name, kind, dtype, shape, orientation, encoding, blocks, norm, packed
    case isTrainingState = "training_state"
    case tiedTo = "tied_to"
    case matrixShape = "matrix_shape"
    case relativeError = "relative_error"
    case metricRelativeError = "metric_relative_error"
    case svdRelativeError = "svd_relative_error"
  }

  private enum Kind: String, Codable { case dense, tied, mpo }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    func invalid(_ key: CodingKeys, _ reason: String) -> DecodingError {
      DecodingError.dataCorruptedError(forKey: key, in: container, debugDescription: reason)
    }
    name = try container.decode(String.self, forKey: .name)
    dtype = try container.decode(DType.self, forKey: .dtype)
    shape = try container.decode([Int].self, forKey: .shape)
    orientation = try container.decodeIfPresent(TensorInfo.Orientation.self, forKey: .orientation)
    isTrainingState = try container.decodeIfPresent(Bool.self, forKey: .isTrainingState) ?? false
    // So many elements that their bits can still be counted.
    guard let count = shape.productOfSizes, count <= Int.max / 64 else {
      throw invalid(.shape, "\(shape) is not the shape of a tensor")
    }
    switch try container.decode(Kind.self, forKey: .kind) {
    case .dense:
      let encoding = try container.decodeIfPresent(ArrayEncoding.self, forKey: .encoding) ?? .plain(dtype)
      guard encoding == .plain(dtype) || dtype.isDecomposable && encoding.valueDType != dtype else {
        throw invalid(.encoding, "a tensor of \(dtype.rawValue) can't be kept as \(encoding.description)")
      }
      if let problem = encoding.problem(role: nil, shape: shape) { throw invalid(.encoding, problem) }
      storage = .dense(encoding)
    case .tied: storage = .tied(to: try container.decode(String.self, forKey: .tiedTo))
    case .mpo:
      let matrixShape = try container.decode([Int].self, forKey: .matrixShape)
      guard matrixShape.count == 2, matrixShape.productOfSizes == count, count > 0 else {
        throw invalid(.matrixShape, "\(matrixShape) does not have the \(count) elements of the tensor")
      }
      guard dtype.isDecomposable else { throw invalid(.dtype, "a tensor of \(dtype.rawValue) can't have cores") }
      let blocks = try container.decode([[BlockMatrix.Term]].self, forKey: .blocks)
      guard !blocks.isEmpty, blocks.allSatisfy({ !$0.isEmpty }) else {
        throw invalid(.blocks, "there must be a block, and a term in every block")
      }
      var matrix = BlockMatrix(rows: matrixShape[0], columns: matrixShape[1], blocks: blocks)
      matrix.relativeError = try container.decodeIfPresent(Double.self, forKey: .relativeError)
      matrix.metricRelativeError = try container.decodeIfPresent(Double.self, forKey: .metricRelativeError)
      matrix.svdRelativeError = try container.decodeIfPresent(Double.self, forKey: .svdRelativeError)
      matrix.norm = try container.decodeIfPresent(Double.self, forKey: .norm)
      storage = .blocks(matrix)
    }
    packed = try container.decodeIfPresent([PackedEntry].self, forKey: .packed) ?? []
    if let problem = array.map(\.packedProblem) ?? (packed.isEmpty ? nil : "only dense tensors have entries") {
      throw invalid(.packed, problem)
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode(dtype, forKey: .dtype)
    try container.encode(shape, forKey: .shape)
    try container.encodeIfPresent(orientation, forKey: .orientation)
    if isTrainingState { try container.encode(true, forKey: .isTrainingState) }
    switch storage {
    case .dense(let encoding):
      try container.encode(Kind.dense, forKey: .kind)
      if encoding != .plain(dtype) { try container.encode(encoding, forKey: .encoding) }
    case .tied(let other):
      try container.encode(Kind.tied, forKey: .kind)
      try container.encode(other, forKey: .tiedTo)
    case .blocks(let matrix):
      try container.encode(Kind.mpo, forKey: .kind)
      try container.encode([matrix.rows, matrix.columns], forKey: .matrixShape)
      try container.encode(matrix.blocks, forKey: .blocks)
      try container.encodeIfPresent(matrix.relativeError, forKey: .relativeError)
      try container.encodeIfPresent(matrix.metricRelativeError, forKey: .metricRelativeError)
      try container.encodeIfPresent(matrix.svdRelativeError, forKey: .svdRelativeError)
      try container.encodeIfPresent(matrix.norm, forKey: .norm)
    }
    if !packed.isEmpty { try container.encode(packed, forKey: .packed) }
  }
}
