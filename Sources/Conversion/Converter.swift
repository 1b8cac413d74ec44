import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

/// The last stage of a conversion: a dense checkpoint and a plan become an MPO checkpoint.
public struct Converter: Sendable {
  /// What the conversion is to be, for the manifest too.
  public var recipe: ConversionRecipe
  /// The part of the tensors to convert; nil for all of them.
  public var part: SourceNetwork.Part?
  public var jobs: Int
  /// The metric the cores are computed in; nil for the Frobenius norm.
  public var statistics: CalibrationStatistics?
  /// How long the cores of more than two sites are refined in it.
  public var refinement = RefinementOptions()
  public var generator: String
  /// Tensors that are the same bytes as another, where they are known.
  var ties: [TensorName: TensorInfo]?

  public init(recipe: ConversionRecipe = ConversionRecipe(), jobs: Int, generator: String) {
    self.recipe = recipe
    self.jobs = jobs
    self.generator = generator
  }

  /// The dtype of the cores; nil for that of the source.
  private var coreDType: DType? { recipe.dtype }
  /// Cores of nil dtype are at least F32: a source in half precision is restored to the rounding of single precision,
  /// which leaves next to all of its elements as they were. F64 cores leave all of them.
  private var isLossless: Bool { recipe.budget == .lossless }
  private var packs: Bool { recipe.pack }
  /// The conversion fails when a measured relative error is above it.
  private var maximumError: Double? {
    if case .maximumError(let error) = recipe.budget { error } else { nil }
  }

  /// Decomposes and writes everything.
  ///
  /// - Parameters:
  ///   - folder: an empty folder.
  /// - Returns: the manifest, with measured errors.
  /// - Throws: `ConversionError.mismatch` when the plan is not for this checkpoint, `.errorAboveMaximum`, and the errors
  ///   of reading and writing.
  @discardableResult
  public func convert(
    _ checkpoint: any DenseCheckpoint, plan: SqueezePlan, to folder: String,
    progress: @escaping ProgressHandler = { _ in }
  ) throws -> Manifest {
    let ties = try self.ties ?? TiedTensors.find(in: checkpoint)
    let all = try self.contents(of: checkpoint, plan: plan, ties: ties)
    let part = part.map { part in
      Manifest.Part(
        index: part.index, count: part.count, tensorCount: all.tensors.count,
        positions: Self.positions(of: part, in: all.tensors))
    }
    let contents = part.map { all.selecting($0.positions) } ?? all
    let records = contents.tensors
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents, packs: packs)
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
        finished[index] = try write(record, of: checkpoint, contents, with: writer)
        counter.finished(record.name, elements: record.info.elementCount)
      }
    }

    let results = zip(records, records.indices).map { finished[$1] ?? $0 }
    if let maximumError {
      let above = results.compactMap { record in
        record.blocks.flatMap { $0.metricRelativeError ?? $0.relativeError }.map { (record.name, $0) }
      }
      .filter { $0.1 > maximumError }
      guard above.isEmpty else { throw ConversionError.errorAboveMaximum(maximum: maximumError, tensors: above) }
    }
    return try writer.finish(
      records: results, generator: generator,
      source: Manifest.Source(
        format: checkpoint.format, files: checkpoint.files.indices.compactMap { fingerprints[$0] },
        metadata: checkpoint.metadata, skeleton: skeleton),
      conversion: recipe, companions: checkpoint.companions, from: checkpoint.folder, part: part)
  }

  /// Which tensors a part has: all parts get about as many bytes, and tensors that are tied stay together.
  private static func positions(of part: SourceNetwork.Part, in records: [TensorRecord]) -> [Int] {
    func holder(_ record: TensorRecord) -> TensorName {
      if case .tied(let other) = record.storage { TensorName(other) } else { TensorName(record.name) }
    }
    let largestFirst = records.indices.filter { holder(records[$0]) == TensorName(records[$0].name) }.sorted {
      (records[$1].info.byteCount, $0) < (records[$0].info.byteCount, $1)
    }
    var sizes = Array(repeating: 0, count: part.count)
    var own: Set<TensorName> = []
    for index in largestFirst {
      let lightest = sizes.indices.min { (sizes[$0], $0) < (sizes[$1], $1) } ?? 0
      sizes[lightest] += records[index].info.byteCount
      if lightest == part.index - 1 { own.insert(TensorName(records[index].name)) }
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

  /// What will be stored: for every tensor of the source its record, with the operator and cores that the plan gives it.
  private func contents(
    of checkpoint: any DenseCheckpoint, plan: SqueezePlan, ties: [TensorName: TensorInfo]
  ) throws -> CheckpointContents {
    var layers = Dictionary(plan.layers.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    var contents = CheckpointContents()
    for tensor in checkpoint.tensors {
      let layer = layers.removeValue(forKey: tensor.key)
      var record = TensorRecord(dense: tensor)
      if let target = ties[tensor.key] {
        record.storage = .tied(to: target.name)
      } else if let layer, let bonds = layer.bonds {
        try check(layer, bonds, fits: tensor, in: checkpoint)
        let (chain, cores) = OperatorRecord.ordinary(
          name: tensor.name, layer.split, bonds: layer.shape.limitedBonds(bonds), gauge: layer.gauge,
          dtype: coreDType ?? defaultCoreDType(for: tensor.dtype), central: recipe.central,
          entropies: layer.entropies)
        var blocks = BlockMatrix(whole: chain)
        (blocks.svdRelativeError, blocks.norm) = (layer.svdRelativeError, layer.norm)
        record.storage = .blocks(blocks)
        contents.append(record, operators: [chain], cores: cores)
        continue
      }
      contents.append(record)
    }
    if let missing = layers.keys.min() {
      throw ConversionError.mismatch(
        path: checkpoint.path, tensor: missing.text, reason: "is in the plan but not in the model; plan this model")
    }
    return contents
  }

  private func check(
    _ layer: SqueezePlan.Layer, _ bonds: [Int], fits tensor: TensorInfo, in checkpoint: any DenseCheckpoint
  ) throws {
    func mismatch(_ reason: String) -> ConversionError {
      .mismatch(path: checkpoint.path, tensor: tensor.name, reason: reason)
    }
    guard let sides = WeightMatrix.sides(of: tensor, convolutions: true), sides == (layer.rows, layer.columns) else {
      throw mismatch(
        "is \(tensor.dtype.rawValue) \(tensor.shape), the plan is for \(layer.rows) × \(layer.columns); "
          + "profile and plan this model")
    }
    guard TensorSelection.fits(layer.shape, rows: layer.rows, columns: layer.columns),
      bonds.count == layer.shape.siteCount - 1
    else {
      throw mismatch(
        "its plan, bonds \(bonds) of the factors \(layer.shape), contradicts itself; make the plan again")
    }
  }

  private func defaultCoreDType(for source: DType) -> DType {
    isLossless && source.bitWidth < 32 ? .f32 : source
  }

  private func write(
    _ record: TensorRecord, of checkpoint: any DenseCheckpoint, _ contents: CheckpointContents,
    with writer: MPOCheckpointWriter
  ) throws -> TensorRecord {
    if record.isDense { try checkpoint.withBytes(of: record.info) { try writer.write($0, of: record) } }
    guard let chain = contents.ordinaryOperator(of: record) else { return record }
    return contents.needsDoublePrecision(record)
      ? try decompose(record, chain, as: Double.self, of: checkpoint, with: writer)
      : try decompose(record, chain, as: Float.self, of: checkpoint, with: writer)
  }

  private func decompose<Scalar: CheckpointScalar>(
    _ record: TensorRecord, _ chain: OperatorRecord, as type: Scalar.Type, of checkpoint: any DenseCheckpoint,
    with writer: MPOCheckpointWriter
  ) throws -> TensorRecord {
    try checkpoint.withMatrix(of: record.info, rows: chain.rows, columns: chain.columns) { (view: MatrixView<Scalar>) in
      let metric = try statistics.flatMap {
        try LayerMetric(of: record.info, rows: chain.rows, columns: chain.columns, $0)
      }
      let stored = try writer.write(cores(of: view, chain, metric: metric), of: chain)
      var result = record
      result.blocks?.relativeError = relativeError(of: stored, to: view)
      result.blocks?.metricRelativeError = metric?.relativeError(of: stored, to: view)
      return result
    }
  }
}

extension Converter {
  /// The cores of one matrix, in the gauge of their record: in a metric, the best factorisation for two sites, refined ones
  /// for more. At full bonds nothing is lost in any metric.
  private func cores<Scalar>(
    of view: MatrixView<Scalar>, _ chain: OperatorRecord, metric: LayerMetric?
  ) throws -> GaugedMPO<Scalar> {
    guard let metric, chain.bonds != chain.shape.fullBonds else {
      return try GaugedMPO(decomposing: view, shape: chain.shape, bonds: chain.bonds, gauge: chain.gauge)
    }
    if chain.shape == .lowRank(rows: chain.rows, columns: chain.columns),
      let factorization = try metric.lowRank(of: view, rank: chain.bonds[0])
    {
      return try factorization.gauged(chain.gauge)
    }
    return try MPO(decomposing: view, shape: chain.shape, bonds: chain.bonds)
      .refined(
        toward: view, metric: metric.forRefinement(rows: chain.rows, columns: chain.columns), options: refinement
      ).gauged(chain.gauge)
  }
}

/// `‖W−Ŵ‖_F / ‖W‖_F`; 0 for a zero matrix that is restored as such.
package func relativeError<Scalar>(of mpo: MPO<Scalar>, to matrix: MatrixView<Scalar>) -> Double {
  mpo.relativeError(to: matrix)
}

func relativeError<Scalar>(of restored: Matrix<Scalar>, to matrix: MatrixView<Scalar>) -> Double {
  let norm = matrix.norm
  if (1e-100...1e100).contains(norm) {
    return restored.elements.withUnsafeBufferPointer { Scalar.squaredDistance(matrix.elements, $0) }.squareRoot() / norm
  }
  // Squares would vanish or overflow.
  let squaredDistance = zip(matrix.elements, restored.elements).reduce(0.0) { sum, pair in
    let difference = pair.0 == pair.1 ? 0 : (Double(pair.0) - Double(pair.1)) / norm
    return sum + difference * difference
  }
  return squaredDistance.squareRoot()
}
