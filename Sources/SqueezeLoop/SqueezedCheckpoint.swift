import Checkpoints
import Conversion
import LinearAlgebra
import MPOCheckpoints
import Squeezing
import TensorNetworks

/// A checkpoint with some of its bonds lowered. Cores are truncated as they are, in core space; a dense matrix is
/// decomposed; what keeps its bonds and its gauge keeps its bytes.
struct SqueezedCheckpoint: Sendable {
  private let source: MPOCheckpoint
  /// Of the result.
  let contents: CheckpointContents

  /// - Parameters:
  ///   - bonds: by name of the operator, the bonds that change; for a dense matrix, by its name.
  ///   - candidates: what a dense matrix needs to become cores.
  ///   - coreDType: of such cores; nil for that of the matrix.
  ///   - gauge: of every operator whose cores are its own; nil leaves each as it is, and makes new ones compact.
  ///   - gauges: by name of the operator, where they are not all the same.
  ///   - keepsErrors: whether what the source says of the errors of unchanged matrices still holds.
  init(
    _ source: MPOCheckpoint, bonds: [TensorName: [Int]] = [:], candidates: [TensorName: SqueezeCandidate] = [:],
    coreDType: DType? = nil, gauge: Gauge? = nil, gauges: [TensorName: Gauge] = [:], keepsErrors: Bool = true
  ) {
    self.source = source
    let old = source.contents
    let shared = old.sharedCores
    var contents = CheckpointContents()
    for var tensor in old.tensors {
      if tensor.isDense, let bonds = bonds[TensorName(tensor.name)],
        let candidate = candidates[TensorName(tensor.name)]
      {
        let (chain, cores) = OperatorRecord.ordinary(
          name: tensor.name, candidate.split, bonds: bonds, gauge: gauge ?? .compact, dtype: coreDType ?? tensor.dtype)
        tensor.storage = .blocks(BlockMatrix(whole: chain))
        contents.append(tensor, operators: [chain], cores: cores)
        continue
      }
      var operators: [OperatorRecord] = []
      var cores: [CoreRecord] = []
      var isChanged = false
      for record in (tensor.blocks?.operators ?? []).compactMap({ old.operator(named: $0) }) {
        let present = record.namedCores.compactMap { old.core(named: $0.name) }
        let isOwn = old.hasOwnChain(record, shared: shared)
        let newBonds = isOwn ? bonds[TensorName(record.name)] ?? record.bonds : record.bonds
        let newGauge = isOwn ? gauge ?? gauges[TensorName(record.name)] ?? record.gauge : record.gauge
        isChanged = isChanged || newBonds != record.bonds
        if newBonds == record.bonds, newGauge == record.gauge {
          operators.append(record)
          cores += present
        } else {
          let (changed, changedCores) = record.changed(bonds: newBonds, gauge: newGauge, cores: present)
          operators.append(changed)
          cores += changedCores
        }
      }
      if isChanged || !keepsErrors {
        tensor.blocks?.relativeError = nil
        tensor.blocks?.metricRelativeError = nil
        tensor.blocks?.svdRelativeError = nil
      }
      contents.append(tensor, operators: operators, cores: cores)
    }
    self.contents = contents
  }

  /// - Parameters:
  ///   - folder: an empty folder.
  ///   - packs: whether entries that become smaller by it are packed.
  ///   - finish: completes it.
  func write(
    to folder: String, packs: Bool = false, jobs: Int, finish: (MPOCheckpointWriter) throws -> Void
  ) throws {
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents, packs: packs)
    BLASThreads.use(1)
    let dense = contents.tensors.filter(\.isDense).sorted {
      ($1.info.byteCount, $0.name) < ($0.info.byteCount, $1.name)
    }
    try forEachInParallel(dense, jobs: jobs) { try writer.copyDense($0, from: source) }
    let unchanged = contents.operators.filter { source.contents.operator(named: $0.name) == $0 }
    let bases = contents.operators.flatMap { [$0.rowBasis, $0.columnBasis].compactMap(\.self).flatMap(\.cores) }
    let kept = Set((unchanged.flatMap { $0.namedCores.map(\.name) } + bases.map(\.name)).map { TensorName($0) })
    try forEachInParallel(contents.cores.filter { kept.contains(TensorName($0.name)) }, jobs: jobs) {
      try writer.copy($0, from: source)
    }
    let changed = contents.operators.filter { !kept.contains(TensorName($0.cores[0])) }
      .sorted { ($1.rows * $1.columns, $0.name) < ($0.rows * $0.columns, $1.name) }
    try forEachInParallel(changed, jobs: jobs) { try write($0, with: writer) }
    try finish(writer)
  }

  private func write(_ record: OperatorRecord, with writer: MPOCheckpointWriter) throws {
    if let present = source.contents.operator(named: record.name) {
      let chain: MPO<Double> = try source.chain(present)
      let truncated = present.bonds == record.bonds ? chain : try chain.truncated(to: record.bonds)
      _ = try writer.write(truncated.gauged(record.gauge), of: record)
    } else if let tensor = source.record(named: record.name) {
      if contents.tensor(named: record.name).map(contents.needsDoublePrecision) ?? false {
        try decompose(tensor, record, as: Double.self, with: writer)
      } else {
        try decompose(tensor, record, as: Float.self, with: writer)
      }
    }
  }

  private func decompose<Scalar: CheckpointScalar>(
    _ tensor: TensorRecord, _ record: OperatorRecord, as type: Scalar.Type, with writer: MPOCheckpointWriter
  ) throws {
    try source.withMatrix(of: tensor, rows: record.rows, columns: record.columns) { (view: MatrixView<Scalar>) in
      let chain = try MPO(decomposing: view, shape: record.shape, bonds: record.bonds)
      _ = try writer.write(chain.gauged(record.gauge), of: record)
    }
  }
}

extension MPOCheckpoint {
  /// Calls `body` with a tensor of kind dense as a matrix.
  func withMatrix<Scalar: CheckpointScalar, Result>(
    of record: TensorRecord, rows: Int, columns: Int, _ body: (MatrixView<Scalar>) throws -> Result
  ) throws -> Result {
    try withDenseBytes(of: record) { bytes in
      try Scalar.withElements(bytes, of: record.dtype) { try body(MatrixView($0, rows: rows, columns: columns)) }
    }
  }

  /// What a squeeze needs to know of a matrix as it is now; nil where its elements are not finite, or too large.
  func profile(of candidate: SqueezeCandidate) throws -> LayerProfile? {
    func profile(_ spectra: SingularSpectra, norm: Double) -> LayerProfile {
      LayerProfile(name: candidate.name, split: candidate.split, norm: norm, spectra: spectra)
    }
    func isUsable(_ norm: Double, isDouble: Bool) -> Bool {
      norm < (isDouble ? .greatestFiniteMagnitude : Double(Float.greatestFiniteMagnitude)) / 1e4
    }
    if let record = contents.operator(named: candidate.name) {
      let chain: MPO<Double> = try self.chain(record)
      guard chain.cores.allSatisfy({ $0.elements.allSatisfy(\.isFinite) }) else { return nil }
      let spectra = try chain.spectra()
      let norm = spectra.norm
      let isDouble = record.cores.allSatisfy { contents.core(named: $0)?.encoding.needsDoublePrecision ?? false }
      return isUsable(norm, isDouble: isDouble) ? profile(spectra, norm: norm) : nil
    }
    guard let record = record(named: candidate.name) else {
      throw MPOCheckpointError.tensor(path: path, tensor: candidate.name, reason: "is missing")
    }
    func dense<Scalar: CheckpointScalar>(_ type: Scalar.Type) throws -> LayerProfile? {
      try withMatrix(of: record, rows: candidate.rows, columns: candidate.columns) { (view: MatrixView<Scalar>) in
        let norm = view.norm
        return isUsable(norm, isDouble: type == Double.self)
          ? profile(try SingularSpectra(of: view, shape: candidate.shape), norm: norm) : nil
      }
    }
    return contents.needsDoublePrecision(record) ? try dense(Double.self) : try dense(Float.self)
  }
}
