import Checkpoints
import Recipes
import TensorNetworks

/// What the manifest says of one operator: a chain of cores that stands for a matrix `[I, J]`,
/// `O = U_r · D_r · chain · D_c · U_cᵀ` with optional bases `U` and scales `D`.
public struct OperatorRecord: Sendable, Equatable {
  /// The name that tensors call it by.
  public let name: String
  /// `[I, J]` of the matrix.
  public let rows: Int
  /// J of the matrix.
  public let columns: Int
  /// The factors of the padded matrix.
  public let shape: MPOShape
  /// `[d_1 … d_{n-1}]`.
  public let bonds: [Int]
  /// The gauge that its chain is stored in.
  public let gauge: Gauge
  /// The names of the n cores of the chain.
  public let cores: [String]
  /// The name of the core with the singular values at the central bond; in the gauge `spectral`.
  public let singularValues: String?
  /// What is applied to the rows of the chain; nil for nothing.
  public let rowBasis: BasisRecord?
  /// What is applied to the columns of the chain; nil for nothing.
  public let columnBasis: BasisRecord?
  /// Entanglement entropy of the source at every bond, natural logarithm.
  public var entropies: [Double]?

  /// What is applied to one side of the chain: names of cores.
  public struct BasisRecord: Sendable, Hashable, Codable {
    /// An orthogonal matrix `U`.
    public let basis: String?
    /// A permutation in its place.
    public let permutation: String?
    /// The diagonal of `D`.
    public let scale: String?

    /// The names of these cores; at most one of `basis` and `permutation`.
    public init(basis: String? = nil, permutation: String? = nil, scale: String? = nil) {
      self.basis = basis
      self.permutation = permutation
      self.scale = scale
    }

    /// The cores it names, with their roles.
    public var cores: [(name: String, role: CoreRecord.Role)] {
      [(basis, .basis), (permutation, .permutation), (scale, .scale)].compactMap { name, role in
        name.map { ($0, role) }
      }
    }
  }

  /// An operator whose chain has the named cores, of the shapes that `shape` and `bonds` give.
  public init(
    name: String, rows: Int, columns: Int, shape: MPOShape, bonds: [Int], gauge: Gauge, cores: [String],
    singularValues: String? = nil, rowBasis: BasisRecord? = nil, columnBasis: BasisRecord? = nil,
    entropies: [Double]? = nil
  ) {
    self.name = name
    self.rows = rows
    self.columns = columns
    self.shape = shape
    self.bonds = bonds
    self.gauge = gauge
    self.cores = cores
    self.singularValues = singularValues
    self.rowBasis = rowBasis
    self.columnBasis = columnBasis
    self.entropies = entropies
  }

  /// Every core it names, in order, with the role and shape that each must have.
  public var namedCores: [(name: String, role: CoreRecord.Role, shape: [Int])] {
    var result = zip(cores, shape.coreShapes(bonds: bonds)).enumerated().map { index, core in
      (name: core.0, role: index == shape.centralIndex ? CoreRecord.Role.central : .auxiliary, shape: core.1)
    }
    if let singularValues { result.append((singularValues, .singularValues, [bonds[shape.centralBond]])) }
    for (basis, size) in [(rowBasis, rows), (columnBasis, columns)] {
      for (name, role) in basis?.cores ?? [] { result.append((name, role, role == .basis ? [size, size] : [size])) }
    }
    return result
  }

  /// How the matrix is split over the sites.
  public var split: MatrixSplit { MatrixSplit(rows: rows, columns: columns, shape: shape) }

  /// The operator with other entropies.
  public func with(entropies: [Double]?) -> OperatorRecord {
    var result = self
    result.entropies = entropies
    return result
  }

  /// The operator with a chain of other bonds, or in another gauge, and its cores: as they were encoded, the chain's names
  /// kept.
  public func changed(
    bonds: [Int], gauge: Gauge, cores present: [CoreRecord]
  ) -> (operator: OperatorRecord, cores: [CoreRecord]) {
    let encodings = Dictionary(
      present.map { (TensorName($0.name), $0.encoding) }, uniquingKeysWith: { first, _ in first })
    let record = OperatorRecord(
      name: name, rows: rows, columns: columns, shape: shape, bonds: bonds, gauge: gauge, cores: cores,
      singularValues: gauge == .spectral ? singularValues ?? "\(name).singular_values" : nil, rowBasis: rowBasis,
      columnBasis: columnBasis, entropies: entropies)
    let changed = record.namedCores.enumerated().map { index, core in
      let encoding = encodings[TensorName(core.name)] ?? encodings[TensorName(cores[0])] ?? .plain(.f32)
      let pivots = core.role == .auxiliary ? record.pivotSide(ofCore: index) : nil
      return CoreRecord(
        name: core.name, role: core.role, shape: core.shape, encoding: encoding.adapted(to: core.shape, pivots: pivots))
    }
    return (record, changed)
  }

  /// The side on which the core with this index is pivoted in the gauge `compact`.
  func pivotSide(ofCore index: Int) -> ArrayEncoding.Pivots? {
    guard gauge == .compact, index != shape.centralIndex else { return nil }
    return index < shape.centralIndex ? .left : .right
  }

  /// The operator and cores of its own for a matrix.
  ///
  /// - Parameters:
  ///   - name: of the operator; its cores are called after it.
  ///   - split: the sides of the matrix, and how they are split.
  ///   - bonds: `[d_1 … d_{n-1}]`.
  ///   - gauge: what the chain is stored as.
  ///   - dtype: of the cores, and of the singular values, that are stored as plain values.
  ///   - central: how the central core is stored; nil for plain values.
  ///   - rowBasis: names of the cores of the rows' basis, which others may share.
  ///   - columnBasis: the same of the columns.
  ///   - entropies: entanglement entropies of the source at the bonds; nil where they are not known.
  public static func ordinary(
    name: String, _ split: MatrixSplit, bonds: [Int], gauge: Gauge, dtype: DType, central: CentralEncoding? = nil,
    rowBasis: BasisRecord? = nil, columnBasis: BasisRecord? = nil, entropies: [Double]? = nil
  ) -> (operator: OperatorRecord, cores: [CoreRecord]) {
    let record = OperatorRecord(
      name: name, rows: split.rows, columns: split.columns, shape: split.shape, bonds: bonds, gauge: gauge,
      cores: (0..<split.shape.siteCount).map { "\(name).cores.\($0)" },
      singularValues: gauge == .spectral ? "\(name).singular_values" : nil, rowBasis: rowBasis,
      columnBasis: columnBasis, entropies: entropies)
    let cores = record.namedCores.enumerated().map { index, core in
      let pivots = core.role == .auxiliary ? record.pivotSide(ofCore: index) : nil
      let dtype = core.role == .permutation ? ArrayEncoding.indexDType(below: core.shape[0]) : dtype
      let encoding = ArrayEncoding(role: core.role, shape: core.shape, pivots: pivots, dtype: dtype, central: central)
      return CoreRecord(name: core.name, role: core.role, shape: core.shape, encoding: encoding)
    }
    return (record, cores)
  }
}

extension OperatorRecord: Codable {
  enum CodingKeys: String, CodingKey {
    case name, bonds, central, gauge, cores, entropies
    case matrixShape = "matrix_shape"
    case paddedShape = "padded_shape"
    case rowFactors = "row_factors"
    case columnFactors = "column_factors"
    case fullBonds = "full_bonds"
    case singularValues = "singular_values"
    case rowBasis = "row_basis"
    case columnBasis = "column_basis"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    func invalid(_ key: CodingKeys, _ reason: String) -> DecodingError {
      DecodingError.dataCorruptedError(forKey: key, in: container, debugDescription: reason)
    }
    name = try container.decode(String.self, forKey: .name)
    do {
      shape = try MPOShape(
        rowFactors: container.decode([Int].self, forKey: .rowFactors),
        columnFactors: container.decode([Int].self, forKey: .columnFactors))
    } catch let error as MPOShapeError {
      throw invalid(.rowFactors, error.description)
    }
    let matrixShape = try container.decode([Int].self, forKey: .matrixShape)
    guard matrixShape.count == 2, matrixShape.allSatisfy({ $0 > 0 }) else {
      throw invalid(.matrixShape, "\(matrixShape) is not the shape of a matrix")
    }
    (rows, columns) = (matrixShape[0], matrixShape[1])
    let padded = try container.decode([Int].self, forKey: .paddedShape)
    guard padded == [shape.rows, shape.columns], rows <= shape.rows, columns <= shape.columns else {
      throw invalid(.paddedShape, "\(padded) does not fit the factors \(shape) and the matrix \(rows) × \(columns)")
    }
    // The tables of index positions are 32 bits wide.
    guard max(shape.rows, shape.columns) <= Int(Int32.max) else {
      throw invalid(.paddedShape, "\(padded) has a side of 2^31 or more")
    }
    bonds = try container.decode([Int].self, forKey: .bonds)
    guard bonds.count == shape.siteCount - 1, shape.limitedBonds(bonds) == bonds else {
      throw invalid(.bonds, "\(bonds) are not bonds of the factors \(shape)")
    }
    guard try container.decode([Int].self, forKey: .fullBonds) == shape.fullBonds else {
      throw invalid(.fullBonds, "must be \(shape.fullBonds)")
    }
    guard try container.decode(Int.self, forKey: .central) == shape.centralIndex else {
      throw invalid(.central, "must be \(shape.centralIndex)")
    }
    gauge = try container.decode(Gauge.self, forKey: .gauge)
    cores = try container.decode([String].self, forKey: .cores)
    guard cores.count == shape.siteCount else {
      throw invalid(.cores, "names \(cores.count) cores, the factors \(shape) need \(shape.siteCount)")
    }
    singularValues = try container.decodeIfPresent(String.self, forKey: .singularValues)
    guard (gauge == .spectral) == (singularValues != nil) else {
      throw invalid(.singularValues, "must be there in the gauge spectral, and only there")
    }
    rowBasis = try container.decodeIfPresent(BasisRecord.self, forKey: .rowBasis)
    columnBasis = try container.decodeIfPresent(BasisRecord.self, forKey: .columnBasis)
    for (key, basis) in [(CodingKeys.rowBasis, rowBasis), (.columnBasis, columnBasis)]
    where basis?.basis != nil && basis?.permutation != nil {
      throw invalid(key, "has a basis and a permutation; one of them is enough")
    }
    entropies = try container.decodeIfPresent([Double].self, forKey: .entropies)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode([rows, columns], forKey: .matrixShape)
    try container.encode([shape.rows, shape.columns], forKey: .paddedShape)
    try container.encode(shape.rowFactors, forKey: .rowFactors)
    try container.encode(shape.columnFactors, forKey: .columnFactors)
    try container.encode(bonds, forKey: .bonds)
    try container.encode(shape.fullBonds, forKey: .fullBonds)
    try container.encode(shape.centralIndex, forKey: .central)
    try container.encode(gauge, forKey: .gauge)
    try container.encode(cores, forKey: .cores)
    try container.encodeIfPresent(singularValues, forKey: .singularValues)
    try container.encodeIfPresent(rowBasis, forKey: .rowBasis)
    try container.encodeIfPresent(columnBasis, forKey: .columnBasis)
    try container.encodeIfPresent(entropies, forKey: .entropies)
  }
}
