import Checkpoints
import Files
import TensorNetworks

/// The tensors of a checkpoint, the operators they are made of, and the cores those name; every core is counted once.
public struct CheckpointContents: Sendable, Equatable {
  /// The tensors, in the order of the source.
  public private(set) var tensors: [TensorRecord]
  /// The operators, in the order in which tensors first name them.
  public private(set) var operators: [OperatorRecord]
  /// The cores, in the order in which operators first name them.
  public private(set) var cores: [CoreRecord]
  private var tensorPlaces: [TensorName: Int] = [:]
  private var operatorPlaces: [TensorName: Int] = [:]
  private var corePlaces: [TensorName: Int] = [:]

  /// - Precondition: names are unique, when the contents are not from outside; `problem` tells.
  public init(tensors: [TensorRecord] = [], operators: [OperatorRecord] = [], cores: [CoreRecord] = []) {
    self.tensors = tensors
    self.operators = operators
    self.cores = cores
    func places(_ names: [String]) -> [TensorName: Int] {
      Dictionary(names.enumerated().map { (TensorName($1), $0) }, uniquingKeysWith: { first, _ in first })
    }
    tensorPlaces = places(tensors.map(\.name))
    operatorPlaces = places(operators.map(\.name))
    corePlaces = places(cores.map(\.name))
  }

  /// The record of a tensor; nil where there is none. O(1).
  public func tensor(named name: String) -> TensorRecord? { tensorPlaces[TensorName(name)].map { tensors[$0] } }
  /// The record of an operator; nil where there is none. O(1).
  public func `operator`(named name: String) -> OperatorRecord? {
    operatorPlaces[TensorName(name)].map { operators[$0] }
  }
  /// The record of a core; nil where there is none. O(1).
  public func core(named name: String) -> CoreRecord? { corePlaces[TensorName(name)].map { cores[$0] } }

  /// Adds a tensor, and the operators and cores it is made of; those that are there already are shared.
  public mutating func append(_ tensor: TensorRecord, operators: [OperatorRecord] = [], cores: [CoreRecord] = []) {
    tensorPlaces[TensorName(tensor.name)] = tensors.count
    tensors.append(tensor)
    for record in operators where operatorPlaces[TensorName(record.name)] == nil {
      operatorPlaces[TensorName(record.name)] = self.operators.count
      self.operators.append(record)
    }
    for core in cores where corePlaces[TensorName(core.name)] == nil {
      corePlaces[TensorName(core.name)] = self.cores.count
      self.cores.append(core)
    }
  }

  /// The contents with some of the tensors, in their order, and what those need.
  public func selecting(_ positions: [Int]) -> CheckpointContents {
    positions.reduce(into: CheckpointContents()) { $0.append(tensors[$1], from: self) }
  }

  /// Adds a tensor of other contents, with what it needs.
  public mutating func append(_ tensor: TensorRecord, from other: CheckpointContents) {
    let operators = tensor.blocks?.operators.compactMap { other.operator(named: $0) } ?? []
    append(
      tensor, operators: operators,
      cores: operators.flatMap { $0.namedCores.compactMap { other.core(named: $0.name) } })
  }

  /// Replaces what is said of tensors and operators; what is stored of them stays.
  mutating func update(_ records: [TensorRecord], _ chains: [OperatorRecord]) {
    for record in records { if let place = tensorPlaces[TensorName(record.name)] { tensors[place] = record } }
    for record in chains { if let place = operatorPlaces[TensorName(record.name)] { operators[place] = record } }
  }

  /// Fills in which entries are packed.
  mutating func setPacked(_ packed: [TensorName: PackedEntry]) {
    for index in tensors.indices {
      tensors[index].packed = tensors[index].array?.entries.compactMap { packed[$0.key] } ?? []
    }
    for index in cores.indices { cores[index].packed = cores[index].entries.compactMap { packed[$0.key] } }
  }

  /// Everything that is stored: for each tensor in order its elements, or the cores that it is the first to need.
  public var arrays: [any StoredArray] {
    var seen: Set<TensorName> = []
    return tensors.flatMap { tensor -> [any StoredArray] in
      if let array = tensor.array { return [array] }
      return namedCores(of: tensor).filter { seen.insert(TensorName($0.name)).inserted }
    }
  }

  /// The cores that a tensor needs, in order; shared ones as often as they are named.
  public func namedCores(of tensor: TensorRecord) -> [CoreRecord] {
    tensor.blocks?.operators.flatMap { name in
      self.operator(named: name)?.namedCores.compactMap { core(named: $0.name) } ?? []
    } ?? []
  }

  /// Whether an entry is stored packed.
  public var isPacked: Bool { arrays.contains { !$0.packed.isEmpty } }

  // MARK: - What is known of tensors and operators

  /// Whether single precision is too little to compute a tensor in: the one place that decides it.
  public func needsDoublePrecision(_ tensor: TensorRecord) -> Bool {
    if tensor.dtype == .f64 { return true }
    if case .dense(let encoding) = tensor.storage { return encoding.needsDoublePrecision }
    return namedCores(of: tensor).contains { $0.encoding.needsDoublePrecision }
  }

  /// The operator whose whole a tensor is, when the chain stands for the matrix without bases: what most tensors are.
  public func ordinaryOperator(of tensor: TensorRecord) -> OperatorRecord? {
    guard let name = tensor.blocks?.wholeOperator, let record = self.operator(named: name),
      record.rowBasis == nil, record.columnBasis == nil
    else { return nil }
    return record
  }

  /// The numbers that an operator is stored with, all of its cores counted.
  public func valueCount(of record: OperatorRecord) -> Int {
    record.namedCores.reduce(0) { $0 + (core(named: $1.name)?.valueCount ?? 0) }
  }

  /// The numbers that a tensor is stored with; 0 for a tied one. Cores that it shares are counted here for every tensor that
  /// needs them.
  public func valueCount(of tensor: TensorRecord) -> Int {
    if let array = tensor.array { return array.valueCount }
    var seen: Set<TensorName> = []
    return namedCores(of: tensor).filter { seen.insert(TensorName($0.name)).inserted }.reduce(0) { $0 + $1.valueCount }
  }

  /// The numbers that count for each tensor in cores: those of a core that several tensors need are divided among them by
  /// their elements, so that all add up to what is stored.
  public var apportionedValueCounts: [TensorName: Double] {
    var needed: [(tensor: TensorRecord, cores: [CoreRecord])] = []
    var elements: [TensorName: Double] = [:]
    for tensor in tensors where tensor.blocks != nil {
      var seen: Set<TensorName> = []
      let cores = namedCores(of: tensor).filter { seen.insert(TensorName($0.name)).inserted }
      for core in cores { elements[TensorName(core.name), default: 0] += Double(tensor.info.elementCount) }
      needed.append((tensor, cores))
    }
    return Dictionary(
      needed.map { tensor, cores in
        let share = cores.reduce(0.0) { sum, core in
          let all = elements[TensorName(core.name)] ?? 0
          return all > 0 ? sum + Double(core.valueCount) * Double(tensor.info.elementCount) / all : sum
        }
        return (TensorName(tensor.name), share)
      }, uniquingKeysWith: { first, _ in first })
  }

  /// Whether a chain has cores of its own alone; bases may be shared.
  public func hasOwnChain(_ record: OperatorRecord, shared: Set<TensorName>) -> Bool {
    !(record.cores + [record.singularValues].compactMap(\.self)).contains { shared.contains(TensorName($0)) }
  }

  /// The names of the cores that more than one operator names.
  public var sharedCores: Set<TensorName> {
    var seen: Set<TensorName> = []
    var shared: Set<TensorName> = []
    for record in operators {
      for name in record.namedCores.map({ TensorName($0.name) }) where !seen.insert(name).inserted {
        shared.insert(name)
      }
    }
    return shared
  }
}

extension CheckpointContents {
  /// The first thing that does not fit together, and the tensor, operator or core it is about; nil when all does.
  var problem: (name: String, reason: String)? {
    func twice(_ names: [String]) -> String? {
      var seen: Set<TensorName> = []
      return names.first { !seen.insert(TensorName($0)).inserted }
    }
    if let name = twice(tensors.map(\.name)) { return (name, "has two records in the manifest") }
    if let name = twice(operators.map(\.name)) { return (name, "is the name of two operators") }
    if let name = twice(cores.map(\.name)) { return (name, "is the name of two cores") }
    for tensor in tensors { if let reason = problem(of: tensor) { return (tensor.name, reason) } }
    for record in operators { if let reason = problem(of: record) { return (record.name, reason) } }
    let used = Set(tensors.flatMap { $0.blocks?.operators ?? [] }.map { TensorName($0) })
    if let unused = operators.first(where: { !used.contains(TensorName($0.name)) }) {
      return (unused.name, "is an operator that no tensor names")
    }
    let named = Set(operators.flatMap { $0.namedCores.map { TensorName($0.name) } })
    if let unused = cores.first(where: { !named.contains(TensorName($0.name)) }) {
      return (unused.name, "is a core that no operator names")
    }
    if let name = twice(arrays.flatMap { $0.entries.map(\.name) }) { return (name, "is the name of two entries") }
    return nil
  }

  private func problem(of tensor: TensorRecord) -> String? {
    switch tensor.storage {
    case .dense: return nil
    case .tied(let other):
      guard let target = self.tensor(named: other) else { return "is tied to '\(escaped(other))', which is not there" }
      if case .tied = target.storage { return "is tied to '\(escaped(other))', which is tied itself" }
      guard target.dtype == tensor.dtype, target.shape == tensor.shape else {
        return "is tied to '\(escaped(other))', which has another dtype or shape"
      }
      return nil
    case .blocks(let matrix):
      var rows = 0
      var values = 0
      for block in matrix.blocks {
        var size: (rows: Int, columns: Int)?
        for term in block {
          guard let record = self.operator(named: term.operator) else {
            return "is made of the operator '\(escaped(term.operator))', which is missing"
          }
          let (rows, columns) = (term.rows ?? 0..<record.rows, term.columns ?? 0..<record.columns)
          guard rows.upperBound <= record.rows, columns.upperBound <= record.columns else {
            return "is made of a range outside of the operator '\(escaped(term.operator))'"
          }
          guard size.map({ $0 == (rows.count, columns.count) }) ?? true else {
            return "has a block with terms of different sizes"
          }
          size = (rows.count, columns.count)
          values = values.addingReportingOverflow(valueCount(of: record)).partialValue
        }
        guard size?.columns == matrix.columns else { return "has a block that is not \(matrix.columns) columns wide" }
        rows += size?.rows ?? 0
      }
      guard rows == matrix.rows else { return "has blocks of \(rows) rows together, not \(matrix.rows)" }
      guard Self.isWithinLimit([matrix.rows, matrix.columns], values: values) else { return Self.tooLarge }
      return nil
    }
  }

  private func problem(of record: OperatorRecord) -> String? {
    for (index, named) in record.namedCores.enumerated() {
      guard let core = core(named: named.name) else {
        return "names the core '\(escaped(named.name))', which is missing"
      }
      guard core.role == named.role, core.shape == named.shape else {
        return "needs the core '\(escaped(named.name))' in the role \(named.role.rawValue) with the shape "
          + "\(named.shape); it has the role \(core.role.rawValue) and the shape \(core.shape)"
      }
      if named.role == .auxiliary, record.gauge == .compact, core.encoding.pivots != record.pivotSide(ofCore: index) {
        return "has the gauge compact, but its core '\(escaped(named.name))' has no pivots on its side"
      }
    }
    let values = valueCount(of: record)
    let whole = record.namedCores.map(\.shape) + [[record.shape.rows, record.shape.columns]]
    return whole.allSatisfy { Self.isWithinLimit($0, values: values) } ? nil : Self.tooLarge
  }

  private static let tooLarge = "has far more elements than its cores could stand for"
  /// Arrays of so many elements are never too large for the values they are made of.
  private static let harmlessElementCount = 1 << 28
  /// How many elements of a larger array one stored value may stand for.
  private static let maximumExpansion = 1 << 16

  /// Whether an array is not so large for its values that a file of a few bytes would make a reader take any amount of
  /// memory: the limit of FORMAT.md.
  private static func isWithinLimit(_ shape: [Int], values: Int) -> Bool {
    guard let count = shape.productOfSizes else { return false }
    let (elements, overflow) = values.multipliedReportingOverflow(by: maximumExpansion)
    return count <= harmlessElementCount || overflow || count - harmlessElementCount <= elements
  }
}
