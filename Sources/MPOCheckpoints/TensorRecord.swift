import Checkpoints
import Files
import TensorNetworks

/// What the manifest says of one tensor of the source.
public struct TensorRecord: Sendable, Equatable {
  public let name: String
  /// Of the source, and of what is restored.
  public let dtype: DType
  public let shape: [Int]
  public let orientation: TensorInfo.Orientation?
  public var storage: Storage
  /// The entries of the tensor that are stored packed; the writer fills it in.
  public internal(set) var packed: [PackedEntry] = []

  /// How the tensor's elements are kept.
  public enum Storage: Sendable, Equatable {
    /// As they were, under the tensor's name.
    case dense
    /// Not at all: they are those of another tensor.
    case tied(to: String)
    /// As cores.
    case mpo(MPORecord)
  }

  public init(
    name: String, dtype: DType, shape: [Int], orientation: TensorInfo.Orientation?, storage: Storage
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.orientation = orientation
    self.storage = storage
  }

  /// The restored tensor.
  public var info: TensorInfo {
    TensorInfo(name: name, dtype: dtype, shape: shape, orientation: orientation ?? .outputInput)
  }

  /// The cores' record, when the tensor is kept as cores.
  public var mpo: MPORecord? {
    if case .mpo(let record) = storage { record } else { nil }
  }

  /// Whether single precision is too little to decompose or restore the tensor in.
  public var needsDoublePrecision: Bool { dtype == .f64 || mpo?.coreDType == .f64 }

  /// The entries that belong to the tensor, unpacked: the tensor itself, or its cores and then the scales of a
  /// quantised central one.
  public var entries: [TensorInfo] {
    switch storage {
    case .dense: return [info]
    case .tied: return []
    case .mpo(let mpo):
      let cores = mpo.shape.coreShapes(bonds: mpo.bonds).enumerated().map { index, shape in
        let isQuantized = index == mpo.shape.centralIndex && mpo.centralScales != nil
        return TensorInfo(
          name: Self.coreName(of: name, index), dtype: isQuantized ? .i8 : mpo.coreDType, shape: shape)
      }
      guard let scales = mpo.centralScales else { return cores }
      let central = Self.coreName(of: name, mpo.shape.centralIndex)
      return cores + [TensorInfo(name: central + ".scales", dtype: .f32, shape: scales)]
    }
  }

  /// The same as the shards have them.
  var storedEntries: [TensorInfo] {
    let packed = Dictionary(packed.map { ($0.name, $0.stored) }, uniquingKeysWith: { first, _ in first })
    return entries.map { packed[$0.name] ?? $0 }
  }

  /// The room the tensor takes in the shards.
  public var storedBytes: Int { storedEntries.reduce(0) { $0 + $1.byteCount } }

  /// Numbers that are stored, scales not counted.
  var parameterCount: Int {
    switch storage {
    case .dense: info.elementCount
    case .tied: 0
    case .mpo(let mpo): mpo.parameterCount
    }
  }

  static func coreName(of tensor: String, _ index: Int) -> String { "\(tensor).cores.\(index)" }
}

/// What the manifest says of a matrix that is kept as a matrix product operator.
public struct MPORecord: Sendable, Equatable {
  /// `[I, J]` of the matrix that was decomposed.
  public let rows: Int
  public let columns: Int
  public let shape: MPOShape
  /// `[d_1 … d_{n-1}]`.
  public let bonds: [Int]
  public let coreDType: DType
  /// Set when the central core is stored as I8: the shape of its scales, each axis 1 or that of the core.
  public let centralScales: [Int]?
  /// `‖W−Ŵ‖_F / ‖W‖_F`, measured on the stored cores; nil when nobody has measured it since they changed.
  public var relativeError: Double?
  /// `‖G^½(W−Ŵ)S^½‖_F / ‖G^½ W S^½‖_F` in the metric of the conversion, measured likewise; nil without a metric.
  public var metricRelativeError: Double?
  /// The Frobenius error of truncated SVD with at most as many parameters.
  public var svdRelativeError: Double?
  /// `‖W‖_F`.
  public var norm: Double?
  /// Entanglement entropy of the source at every bond, natural logarithm.
  public var entropies: [Double]?

  public init(
    rows: Int, columns: Int, shape: MPOShape, bonds: [Int], coreDType: DType, centralScales: [Int]? = nil,
    relativeError: Double? = nil, metricRelativeError: Double? = nil, svdRelativeError: Double? = nil,
    norm: Double? = nil, entropies: [Double]? = nil
  ) {
    self.rows = rows
    self.columns = columns
    self.shape = shape
    self.bonds = bonds
    self.coreDType = coreDType
    self.centralScales = centralScales
    self.relativeError = relativeError
    self.metricRelativeError = metricRelativeError
    self.svdRelativeError = svdRelativeError
    self.norm = norm
    self.entropies = entropies
  }

  /// Matrices of so many elements are never too large for their cores.
  static let harmlessElementCount = 1 << 28
  /// How many elements of a larger matrix one element of the cores may stand for.
  static let maximumExpansion = 1 << 16

  /// Whether the padded matrix is not so large for its cores that a file of a few bytes would make a reader take any
  /// amount of memory: the limit of FORMAT.md.
  static func isWithinLimit(_ shape: MPOShape, bonds: [Int]) -> Bool {
    let count = [shape.rows, shape.columns].productOfSizes
    if let count, count <= harmlessElementCount { return true }
    var limit = harmlessElementCount
    for core in shape.coreShapes(bonds: bonds) {
      let (elements, isTooMany) = (core.productOfSizes ?? .max).multipliedReportingOverflow(by: maximumExpansion)
      let (sum, overflow) = limit.addingReportingOverflow(elements)
      limit = isTooMany || overflow ? .max : sum
    }
    return count.map { $0 <= limit } ?? false
  }

  public var parameterCount: Int { shape.parameterCount(bonds: bonds) }
  /// Parameters of the central core, which lightweight fine-tuning leaves alone.
  public var centralParameterCount: Int { shape.coreShapes(bonds: bonds)[shape.centralIndex].reduce(1, *) }
  /// The shape of the scales that this program gives a central core of these factors and bonds when it is stored as I8.
  public static func centralScales(_ shape: MPOShape, bonds: [Int]) -> [Int] {
    QuantizedCore.scaleShape(ofCore: shape.coreShapes(bonds: bonds)[shape.centralIndex])
  }
  /// ρ, parameters of the cores over those of the matrix.
  public var ratio: Double { Double(parameterCount) / Double(rows * columns) }
}

extension TensorRecord: Codable {
  enum CodingKeys: String, CodingKey {
    case name, kind, dtype, shape, orientation, bonds, central, norm, entropies, packed
    case tiedTo = "tied_to"
    case matrixShape = "matrix_shape"
    case paddedShape = "padded_shape"
    case rowFactors = "row_factors"
    case columnFactors = "column_factors"
    case fullBonds = "full_bonds"
    case coreDType = "core_dtype"
    case centralScales = "central_scales"
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
    // So many elements that their bits can still be counted.
    guard let count = shape.productOfSizes, count <= Int.max / 64 else {
      throw invalid(.shape, "\(shape) is no shape of a tensor")
    }
    switch try container.decode(Kind.self, forKey: .kind) {
    case .dense: storage = .dense
    case .tied: storage = .tied(to: try container.decode(String.self, forKey: .tiedTo))
    case .mpo:
      let shape: MPOShape
      do {
        shape = try MPOShape(
          rowFactors: container.decode([Int].self, forKey: .rowFactors),
          columnFactors: container.decode([Int].self, forKey: .columnFactors))
      } catch let error as MPOShapeError {
        throw invalid(.rowFactors, error.description)
      }
      let matrixShape = try container.decode([Int].self, forKey: .matrixShape)
      guard matrixShape.count == 2, matrixShape.productOfSizes == count, count > 0 else {
        throw invalid(.matrixShape, "\(matrixShape) does not have the \(count) elements of the tensor")
      }
      let (rows, columns) = (matrixShape[0], matrixShape[1])
      let padded = try container.decode([Int].self, forKey: .paddedShape)
      guard padded == [shape.rows, shape.columns], rows <= shape.rows, columns <= shape.columns else {
        throw invalid(.paddedShape, "\(padded) does not fit the factors \(shape) and the matrix \(rows) × \(columns)")
      }
      // The tables of index positions are 32 bits wide.
      guard max(shape.rows, shape.columns) <= Int(Int32.max) else {
        throw invalid(.paddedShape, "\(padded) has a side of 2^31 or more")
      }
      let bonds = try container.decode([Int].self, forKey: .bonds)
      guard bonds.count == shape.siteCount - 1, shape.limitedBonds(bonds) == bonds else {
        throw invalid(.bonds, "\(bonds) are not bonds of the factors \(shape)")
      }
      guard MPORecord.isWithinLimit(shape, bonds: bonds) else {
        throw invalid(.paddedShape, "\(padded) has far more elements than its cores could stand for")
      }
      guard try container.decode([Int].self, forKey: .fullBonds) == shape.fullBonds else {
        throw invalid(.fullBonds, "must be \(shape.fullBonds)")
      }
      guard try container.decode(Int.self, forKey: .central) == shape.centralIndex else {
        throw invalid(.central, "must be \(shape.centralIndex)")
      }
      let coreDType = try container.decode(DType.self, forKey: .coreDType)
      guard coreDType.isDecomposable, dtype.isDecomposable else {
        throw invalid(.coreDType, "a tensor of \(dtype.rawValue) can't have cores of \(coreDType.rawValue)")
      }
      let scales = try container.decodeIfPresent([Int].self, forKey: .centralScales)
      if let scales {
        let core = shape.coreShapes(bonds: bonds)[shape.centralIndex]
        guard scales.count == core.count, zip(scales, core).allSatisfy({ $0 == 1 || $0 == $1 }) else {
          throw invalid(.centralScales, "\(scales) do not broadcast to the central core \(core)")
        }
      }
      storage = .mpo(
        MPORecord(
          rows: rows, columns: columns, shape: shape, bonds: bonds, coreDType: coreDType, centralScales: scales,
          relativeError: try container.decodeIfPresent(Double.self, forKey: .relativeError),
          metricRelativeError: try container.decodeIfPresent(Double.self, forKey: .metricRelativeError),
          svdRelativeError: try container.decodeIfPresent(Double.self, forKey: .svdRelativeError),
          norm: try container.decodeIfPresent(Double.self, forKey: .norm),
          entropies: try container.decodeIfPresent([Double].self, forKey: .entropies)))
    }
    packed = try container.decodeIfPresent([PackedEntry].self, forKey: .packed) ?? []
    var rest = Dictionary(entries.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    for entry in packed {
      guard let expected = rest.removeValue(forKey: entry.name) else {
        throw invalid(.packed, "'\(escaped(entry.name))' is no entry of the tensor, or packed twice")
      }
      guard (expected.dtype, expected.shape) == (entry.dtype, entry.shape) else {
        throw invalid(
          .packed,
          "'\(escaped(entry.name))' unpacks to \(entry.dtype.rawValue) \(entry.shape), not "
            + "\(expected.dtype.rawValue) \(expected.shape)")
      }
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode(dtype, forKey: .dtype)
    try container.encode(shape, forKey: .shape)
    try container.encodeIfPresent(orientation, forKey: .orientation)
    switch storage {
    case .dense: try container.encode(Kind.dense, forKey: .kind)
    case .tied(let other):
      try container.encode(Kind.tied, forKey: .kind)
      try container.encode(other, forKey: .tiedTo)
    case .mpo(let mpo):
      try container.encode(Kind.mpo, forKey: .kind)
      try container.encode([mpo.rows, mpo.columns], forKey: .matrixShape)
      try container.encode([mpo.shape.rows, mpo.shape.columns], forKey: .paddedShape)
      try container.encode(mpo.shape.rowFactors, forKey: .rowFactors)
      try container.encode(mpo.shape.columnFactors, forKey: .columnFactors)
      try container.encode(mpo.bonds, forKey: .bonds)
      try container.encode(mpo.shape.fullBonds, forKey: .fullBonds)
      try container.encode(mpo.shape.centralIndex, forKey: .central)
      try container.encode(mpo.coreDType, forKey: .coreDType)
      try container.encodeIfPresent(mpo.centralScales, forKey: .centralScales)
      try container.encodeIfPresent(mpo.relativeError, forKey: .relativeError)
      try container.encodeIfPresent(mpo.metricRelativeError, forKey: .metricRelativeError)
      try container.encodeIfPresent(mpo.svdRelativeError, forKey: .svdRelativeError)
      try container.encodeIfPresent(mpo.norm, forKey: .norm)
      try container.encodeIfPresent(mpo.entropies, forKey: .entropies)
    }
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
