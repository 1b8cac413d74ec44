import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Squeezing
import TensorNetworks

/// The last stage of a conversion: a dense checkpoint and a plan become an MPO checkpoint.
public struct Converter: Sendable {
  /// The dtype of the cores; nil for that of the source.
  public var coreDType: DType?
  /// Cores of nil dtype are at least F32: a source in half precision is restored to the rounding of single precision,
  /// which leaves next to all of its elements as they were. F64 cores leave all of them.
  public var isLossless = false
  /// Whether the central cores are stored as bytes with scales.
  public var quantizesCentralCores = false
  /// Whether entries are packed.
  public var packs = false
  /// The part of the tensors to convert; nil for all of them.
  public var part: SourceNetwork.Part?
  public var jobs: Int
  /// Fails when a measured relative error is above it.
  public var maximumError: Double?
  /// The metric the cores are computed in; nil for the Frobenius norm.
  public var statistics: CalibrationStatistics?
  /// How long the cores of more than two sites are refined in it.
  public var refinement = RefinementOptions()
  /// How the conversion was asked for, for the manifest.
  public var options: [String: String] = [:]
  public var generator: String

  public init(jobs: Int, generator: String) {
    self.jobs = jobs
    self.generator = generator
  }

  /// Decomposes and writes everything.
  ///
  /// - Parameters:
  ///   - folder: an empty folder.
  /// - Returns: the records, with measured errors.
  /// - Throws: `ConversionError.mismatch` when the plan is not for this checkpoint, `.errorAboveMaximum`, and the errors
  ///   of reading and writing.
  @discardableResult
  public func convert(
    _ checkpoint: any DenseCheckpoint, plan: SqueezePlan, to folder: String,
    progress: @escaping ProgressHandler = { _ in }
  ) throws -> [TensorRecord] {
    let ties = try TiedTensors.find(in: checkpoint)
    let all = try self.records(of: checkpoint, plan: plan, ties: ties)
    let part = part.map { part in
      Manifest.Part(
        index: part.index, count: part.count, tensorCount: all.count, positions: Self.positions(of: part, in: all))
    }
    let records = part.map { $0.positions.map { all[$0] } } ?? all
    let writer = try MPOCheckpointWriter(folder: folder, records: records, packs: packs)
    let skeleton = checkpoint.skeletonName
    if let skeleton { try checkpoint.writeSkeleton(to: folder + "/" + skeleton) }
    let finished = ParallelResults<TensorRecord>(count: records.count)
    let fingerprints = ParallelResults<FileFingerprint>(count: checkpoint.files.count)
    let counter = ProgressCounter(.convert, total: records.reduce(0) { $0 + $1.info.elementCount }, progress)
    BLASThreads.use(1)

    try forEachInParallel(work(on: records, files: checkpoint.files.count), jobs: jobs) { item in
      switch item {
      case .fingerprint(let index):
        fingerprints[index] = try FileFingerprint(ofFileAt: checkpoint.files[index])
      case .tensor(let index):
        let record = records[index]
        finished[index] = try write(record, of: checkpoint, with: writer)
        counter.finished(record.name, elements: record.info.elementCount)
      }
    }

    let results = zip(records, records.indices).map { finished[$1] ?? $0 }
    if let maximumError {
      let above = results.compactMap { record in
        record.mpo.flatMap { $0.metricRelativeError ?? $0.relativeError }.map { (record.name, $0) }
      }
      .filter { $0.1 > maximumError }
      guard above.isEmpty else { throw ConversionError.errorAboveMaximum(maximum: maximumError, tensors: above) }
    }
    let manifest = try writer.finish(
      records: results, generator: generator,
      source: Manifest.Source(
        format: checkpoint.format, files: checkpoint.files.indices.compactMap { fingerprints[$0] },
        metadata: checkpoint.metadata, skeleton: skeleton),
      options: options, companions: checkpoint.companions, from: checkpoint.folder, part: part)
    return manifest.tensors
  }

  /// Which tensors a part has: all parts get about as many bytes, and tensors that are tied stay together.
  private static func positions(of part: SourceNetwork.Part, in records: [TensorRecord]) -> [Int] {
    func holder(_ record: TensorRecord) -> String {
      if case .tied(let other) = record.storage { other } else { record.name }
    }
    let largestFirst = records.indices.filter { holder(records[$0]) == records[$0].name }.sorted {
      (records[$1].info.byteCount, $0) < (records[$0].info.byteCount, $1)
    }
    var sizes = Array(repeating: 0, count: part.count)
    var own: Set<String> = []
    for index in largestFirst {
      let lightest = sizes.indices.min { (sizes[$0], $0) < (sizes[$1], $1) } ?? 0
      sizes[lightest] += records[index].info.byteCount
      if lightest == part.index - 1 { own.insert(records[index].name) }
    }
    return records.indices.filter { own.contains(holder(records[$0])) }
  }

  private enum WorkItem: Sendable {
    case tensor(Int)
    case fingerprint(Int)
  }

  /// The source's files, then the tensors, largest first.
  private func work(on records: [TensorRecord], files: Int) -> [WorkItem] {
    let tensors = records.indices.sorted {
      (records[$1].info.byteCount, $0) < (records[$0].info.byteCount, $1)
    }
    return (0..<files).map { .fingerprint($0) } + tensors.map { .tensor($0) }
  }

  private func records(
    of checkpoint: any DenseCheckpoint, plan: SqueezePlan, ties: [String: TensorInfo]
  ) throws -> [TensorRecord] {
    var layers = Dictionary(plan.layers.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    let records = try checkpoint.tensors.map { tensor in
      let layer = layers.removeValue(forKey: tensor.name)
      var storage = TensorRecord.Storage.dense
      if let target = ties[tensor.name] {
        storage = .tied(to: target.name)
      } else if let layer, let bonds = layer.bonds {
        guard let sides = WeightMatrix.sides(of: tensor, convolutions: true), sides == (layer.rows, layer.columns)
        else {
          throw ConversionError.mismatch(
            path: checkpoint.path, tensor: tensor.name,
            reason: "is \(tensor.dtype.rawValue) \(tensor.shape), the plan is for \(layer.rows) × \(layer.columns); "
              + "profile and plan this model")
        }
        guard TensorSelection.fits(layer.shape, rows: layer.rows, columns: layer.columns),
          bonds.count == layer.shape.siteCount - 1
        else {
          throw ConversionError.mismatch(
            path: checkpoint.path, tensor: tensor.name,
            reason: "its plan, bonds \(bonds) of the factors \(layer.shape), contradicts itself; make the plan again")
        }
        let limited = layer.shape.limitedBonds(bonds)
        storage = .mpo(
          MPORecord(
            rows: layer.rows, columns: layer.columns, shape: layer.shape, bonds: limited,
            coreDType: coreDType ?? defaultCoreDType(for: tensor.dtype),
            centralScales: quantizesCentralCores ? MPORecord.centralScales(layer.shape, bonds: limited) : nil,
            svdRelativeError: layer.svdRelativeError,
            norm: layer.norm, entropies: layer.entropies))
      }
      return TensorRecord(
        name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, orientation: tensor.orientation,
        storage: storage)
    }
    if let missing = layers.keys.min() {
      throw ConversionError.mismatch(
        path: checkpoint.path, tensor: missing, reason: "is in the plan but not in the model; plan this model")
    }
    return records
  }

  private func defaultCoreDType(for source: DType) -> DType {
    isLossless && source.bitWidth < 32 ? .f32 : source
  }

  private func write(
    _ record: TensorRecord, of checkpoint: any DenseCheckpoint, with writer: MPOCheckpointWriter
  ) throws -> TensorRecord {
    switch record.storage {
    case .tied: return record
    case .dense:
      try checkpoint.withBytes(of: record.info) { try writer.write($0, of: record) }
      return record
    case .mpo(let mpo):
      return record.needsDoublePrecision
        ? try decompose(record, mpo, as: Double.self, of: checkpoint, with: writer)
        : try decompose(record, mpo, as: Float.self, of: checkpoint, with: writer)
    }
  }

  private func decompose<Scalar: CheckpointScalar>(
    _ record: TensorRecord, _ mpo: MPORecord, as type: Scalar.Type, of checkpoint: any DenseCheckpoint,
    with writer: MPOCheckpointWriter
  ) throws -> TensorRecord {
    try checkpoint.withMatrix(of: record.info, rows: mpo.rows, columns: mpo.columns) { (view: MatrixView<Scalar>) in
      let metric = try statistics?.metric(of: record.name, rows: mpo.rows, columns: mpo.columns)
      let stored = try writer.write(cores(of: view, mpo, metric: metric), of: record)
      var measured = mpo
      measured.relativeError = relativeError(of: stored, to: view)
      measured.metricRelativeError = metric.map { $0.relativeError(of: stored, to: view) }
      var result = record
      result.storage = .mpo(measured)
      return result
    }
  }
}

extension Converter {
  /// The cores of one matrix: in a metric, the best factorisation for two sites, refined ones for more.
  private func cores<Scalar>(
    of view: MatrixView<Scalar>, _ mpo: MPORecord, metric: Metric?
  ) throws -> MPO<Scalar> {
    guard let metric else { return try MPO(decomposing: view, shape: mpo.shape, bonds: mpo.bonds) }
    if metric.elements == nil, mpo.shape == .lowRank(rows: mpo.rows, columns: mpo.columns) {
      return try MPO(lowRank: view, rank: mpo.bonds[0], metric: metric.regularized(for: .lowRank, statistics))
    }
    return try MPO(decomposing: view, shape: mpo.shape, bonds: mpo.bonds)
      .refined(toward: view, metric: metric.regularized(for: .sites, statistics), options: refinement)
  }
}

extension Metric {
  /// The relative error of the cores in this metric.
  func relativeError<Scalar>(of mpo: MPO<Scalar>, to view: MatrixView<Scalar>) -> Double {
    let matrix = Matrix(rows: view.rows, columns: view.columns, elements: Array(view.elements)).converted(
      to: Double.self)
    let restored = mpo.matrix(rows: view.rows, columns: view.columns).converted(to: Double.self)
    var difference = matrix
    difference.subtract(restored)
    let total = squaredNorm(of: matrix)
    return total > 0 ? (max(0, squaredNorm(of: difference)) / total).squareRoot() : 0
  }
}

/// `‖W−Ŵ‖_F / ‖W‖_F`; 0 for a zero matrix that is restored as such.
package func relativeError<Scalar>(of mpo: MPO<Scalar>, to matrix: MatrixView<Scalar>) -> Double {
  let distance = mpo.squaredDistance(to: matrix).squareRoot()
  return distance == 0 ? 0 : distance / matrix.squaredNorm.squareRoot()
}
