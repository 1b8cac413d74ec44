import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Recipes
import TensorNetworks

extension ReportSubject {
  /// An MPO checkpoint, with the errors that were measured when it was made.
  public init(_ checkpoint: MPOCheckpoint) {
    self.init(
      checkpoint.manifest, path: checkpoint.path, ModelConfiguration(folder: checkpoint.path))
  }

  /// What a manifest says of a checkpoint.
  /// - Parameter configuration: of the source.
  init(_ manifest: CheckpointManifest, path: String, _ configuration: ModelConfiguration) {
    let contents = manifest.contents
    let counts = contents.apportionedValueCounts
    self.init(
      kind: .checkpoint, path: path, parametersBefore: manifest.totals.parametersBefore,
      parametersAfter: manifest.totals.parametersStored,
      matrices: contents.tensors.compactMap {
        MatrixFigures($0, in: contents, stored: counts[TensorName($0.name)])
      })
    recipe = manifest.conversion
    history = manifest.squeeze.map {
      "squeezed in \($0.rounds) rounds (\($0.limit)): score \($0.baselineScore) → \($0.score)"
    }
    sources = (manifest.source?.files ?? []).map { "\($0.file) (SHA-256 \($0.sha256.prefix(12))…)" }
    trainable = manifest.totals.parametersTrainable
    bytesBefore = manifest.totals.bytesBefore
    bytesAfter = manifest.totals.bytesStored
    relativeError = manifest.totals.relativeError
    tied = contents.tensors.count { if case .tied = $0.storage { true } else { false } }
    dense = (manifest.conversion?.selection ?? TensorSelection()).denseTensors(
      in: contents, configuration)
    tensors = contents.tensors.map { ($0.name, $0.shape) }
  }

  /// A dense checkpoint, before any conversion.
  public init(_ checkpoint: any DenseCheckpoint) {
    let count = checkpoint.tensors.reduce(0) { $0 + $1.elementCount }
    self.init(
      kind: .dense, path: checkpoint.path, parametersBefore: count, parametersAfter: count,
      matrices: checkpoint.tensors.compactMap {
        MatrixFigures(TensorRecord(dense: $0), in: CheckpointContents())
      })
    bytesBefore = checkpoint.tensors.reduce(0) { $0 + $1.byteCount }
    bytesAfter = bytesBefore
    tensors = checkpoint.tensors.map { ($0.name, $0.shape) }
  }
}

extension MatrixFigures {
  /// nil for what is no matrix of floating-point numbers.
  init?(_ record: TensorRecord, in contents: CheckpointContents, stored: Double? = nil) {
    guard record.dtype.isDecomposable, record.shape.count >= 2, record.info.elementCount > 0,
      !record.isTrainingState
    else { return nil }
    let rows = record.blocks?.rows ?? record.shape[0]
    let columns = record.info.elementCount / max(1, rows)
    switch record.storage {
    case .dense:
      self.init(
        name: record.name, rows: rows, columns: columns, state: .dense,
        stored: Double(record.info.elementCount))
      if record.shape.count > 2 { tensorShape = record.shape }
    case .tied(let other):
      self.init(name: record.name, rows: rows, columns: columns, state: .tied(to: other), stored: 0)
    case .blocks(let matrix):
      self.init(name: record.name, rows: rows, columns: columns, state: .cores, stored: stored ?? 0)
      relativeError = matrix.relativeError
      metricError = matrix.metricRelativeError
      svdError = matrix.svdRelativeError
      norm = matrix.norm
      entropies = contents.ordinaryOperator(of: record)?.entropies
      chains = matrix.blocks.joined().compactMap { term in
        contents.operator(named: term.operator).map { Chain($0, term, in: contents) }
      }
    }
  }
}

extension MatrixFigures.Chain {
  fileprivate init(
    _ record: OperatorRecord, _ term: BlockMatrix.Term, in contents: CheckpointContents
  ) {
    var seen: Set<String> = []
    let encodings = record.cores.compactMap { contents.core(named: $0)?.encoding.description }
      .filter { seen.insert($0).inserted }
    let ranges = [("rows", term.rows), ("columns", term.columns)].compactMap { side, range in
      range.map { "\(side) \($0.lowerBound) to \($0.upperBound - 1)" }
    }
    self.init(
      name: record.name, shape: record.shape, bonds: record.bonds, gauge: record.gauge.rawValue,
      encodings: encodings.joined(separator: "/"),
      range: ranges.isEmpty ? nil : ranges.joined(separator: ", "),
      hasBases: record.rowBasis != nil || record.columnBasis != nil)
  }
}
