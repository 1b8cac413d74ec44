import Checkpoints
import MPOCheckpoints
import TensorNetworks

/// What of a source becomes an operator, or a range of one: a tensor, or one of the matrices stacked in it.
struct PlannedMatrix {
  let tensor: TensorInfo
  let expert: Int?
  let rows: Int
  let columns: Int
  let chain: OperatorRecord
  /// What is added to it; nil for nothing.
  let residual: OperatorRecord?
  /// The matrix as if it were a tensor by itself.
  let info: TensorInfo
  let needsDoublePrecision: Bool
  /// What each core of the chain is rounded to; nil for plain values.
  let integers: [IntegerGroups?]

  /// Whether it is an expert beside others in cores that has its very elements: see `Converter.planned`.
  var staysDense: Bool {
    expert != nil && chain.gauge == .compact && chain.shape.isFactored && chain.bonds == chain.shape.fullBonds
  }

  /// - Parameter name: of the matrix, when it is linked; else it has that of its operator.
  init(
    _ block: Int, of record: TensorRecord, named name: String? = nil, in contents: CheckpointContents,
    orientation: TensorInfo.Orientation
  ) throws {
    tensor = record.info
    let terms = (record.blocks?.blocks ?? [])[block]
    let term = terms[0]
    residual = terms.count > 1 ? contents.operator(named: terms[1].operator) : nil
    let isWhole = (name ?? record.blocks?.wholeOperator) == record.name
    expert = record.shape.count == 3 && !isWhole ? block : nil
    guard let chain = contents.operator(named: term.operator) else {
      throw ConversionError.stageFile(path: record.name, reason: "has no operator")
    }
    self.chain = chain
    (rows, columns) = (term.rows?.count ?? chain.rows, term.columns?.count ?? chain.columns)
    info =
      expert == nil
      ? record.info
      : TensorInfo(
        name: name ?? chain.name, dtype: record.dtype, shape: [rows, columns], orientation: orientation)
    needsDoublePrecision = contents.needsDoublePrecision(record)
    integers = chain.cores.map { contents.core(named: $0)?.encoding.integers }
  }
}
