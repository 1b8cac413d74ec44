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
  /// Matrices that are worked on at the same time.
  public var jobs: Int
  /// The metric the cores are computed in; nil for the Frobenius norm.
  public var statistics: CalibrationStatistics?
  /// What of the matrices counts; nil for all of them.
  var mask: NetworkMask?
  /// How long the cores of more than two sites are refined in it.
  public var refinement = RefinementOptions()
  /// The program that writes, for the manifest: its name and version.
  public var generator: String
  /// Tensors that are the same bytes as another, where they are known.
  var ties: [TensorName: TensorInfo]?
  /// What is no weight, where it is known.
  var kept: KeptTensors?
  /// Of the chains; nil for none.
  var bases: NetworkBases?
  /// What the profile has left for the decompositions; nil for nothing.
  var reductions: KeptReductions?

  /// A converter that works on so many matrices at a time.
  public init(recipe: ConversionRecipe = ConversionRecipe(), jobs: Int, generator: String) {
    self.recipe = recipe
    self.jobs = jobs
    self.generator = generator
  }

  /// The dtype of the cores; nil for that of the source.
  var coreDType: DType? { recipe.dtype }
  /// Cores of nil dtype are at least F32: a source in half precision is restored to the rounding of single precision,
  /// which leaves next to all of its elements as they were. F64 cores leave all of them.
  var isLossless: Bool { recipe.budget == .lossless }
  private var packs: Bool { recipe.pack }
  /// The conversion fails when a measured relative error is above it.
  private var maximumError: Double? {
    if case .maximumError(let error) = recipe.budget { error } else { nil }
  }

  /// Decomposes and writes everything.
  ///
  /// - Parameters:
  ///   - checkpoint: what is converted.
  ///   - plan: which bond goes where.
  ///   - folder: an empty folder.
  ///   - progress: called as tensors are finished.
  /// - Returns: the manifest, with measured errors.
  /// - Throws: `ConversionError.mismatch` when the plan is not for this checkpoint, `.errorAboveMaximum`, and the errors
  ///   of reading and writing.
  @discardableResult
  public func convert(
    _ checkpoint: any DenseCheckpoint, plan: SqueezePlan, to folder: String,
    progress: @escaping ProgressHandler = { _ in }
  ) throws -> CheckpointManifest {
    let ties = try self.ties ?? TiedTensors.find(in: checkpoint)
    let all = try self.contents(of: checkpoint, plan: plan, ties: ties)
    // Each file is read whole by one of the parts.
    let (number, count) = (self.part?.index ?? 1, self.part?.count ?? 1)
    let files: [Int] = Array(checkpoint.files.indices).filter { $0 % count == number - 1 }
    let part = try self.part.map { part in
      CheckpointManifest.Part(
        index: part.index, count: part.count, tensorCount: all.tensors.count,
        positions: division(of: all, plan, into: part.count)[part.index - 1],
        files: CheckpointManifest.Part.Files(
          count: checkpoint.files.count, positions: files,
          sample: try FileSample.digest(ofFilesAt: checkpoint.files)))
    }
    let contents = part.map { all.selecting($0.positions) } ?? all
    let records = contents.tensors
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents, packs: packs)
    let bases = try write(bases, of: contents, with: writer)
    var source = try CheckpointManifest.Source(of: checkpoint, writingSkeletonsTo: folder)
    let offsets = records.reduce(into: [0]) { $0.append($0[$0.count - 1] + ($1.blocks?.blocks.count ?? 0)) }
    let links = plan.linkedBlocks(in: contents)
    let errors = ParallelResults<OperatorErrors>(count: offsets[records.count])
    let fingerprints = ParallelResults<FileFingerprint>(count: checkpoint.files.count)
    let orientation = ModelConfiguration(of: checkpoint).expertOrientation
    let counter = ProgressCounter(.convert, total: records.reduce(0) { $0 + $1.info.elementCount }, progress)
    BLASThreads.use(1)

    try forEachInParallel(
      work(on: records, files: files, links: links), jobs: jobs
    ) { item in
      switch item {
      case .fingerprint(let index):
        fingerprints[index] = try FileFingerprint(ofFileAt: checkpoint.files[index])
      case .tensor(let index):
        let record = records[index]
        if record.isDense { try checkpoint.withBytes(of: record.info) { try writer.write($0, of: record) } }
        counter.finished(record.name, elements: record.info.elementCount)
      case .link(let index):
        let members = try zip(links[index].blocks, links[index].kind.members).map { place, name in
          try PlannedMatrix(
            place.block, of: records[place.tensor], named: name, in: contents, orientation: orientation)
        }
        let found: [OperatorErrors]
        switch links[index].kind {
        case .link(let link):
          found =
            members.contains(where: \.needsDoublePrecision)
            ? try decompose(members, link, as: Double.self, of: checkpoint, with: writer)
            : try decompose(members, link, as: Float.self, of: checkpoint, with: writer)
        case .centre: found = try decomposeWithCommonCentre(members, of: checkpoint, with: writer)
        }
        for (place, found) in zip(links[index].blocks, found) { errors[offsets[place.tensor] + place.block] = found }
        let chain = members[0].chain
        counter.finished(chain.name, elements: chain.rows * chain.columns)
      case .block(let index, let block):
        let matrix = try PlannedMatrix(block, of: records[index], in: contents, orientation: orientation)
        errors[offsets[index] + block] =
          matrix.needsDoublePrecision
          ? try decompose(matrix, as: Double.self, of: checkpoint, bases[TensorName(matrix.chain.name)], with: writer)
          : try decompose(matrix, as: Float.self, of: checkpoint, bases[TensorName(matrix.chain.name)], with: writer)
        counter.finished(matrix.chain.name, elements: matrix.chain.rows * matrix.chain.columns)
      }
    }

    let results = records.indices.map { index in
      var result = records[index]
      let found = (offsets[index]..<offsets[index + 1]).compactMap { errors[$0] }
      OperatorErrors.join(found, into: &result.blocks)
      // The plan has those of the masked matrix.
      if mask?.file != nil, result.blocks != nil {
        result.blocks?.norm = found.reduce(0) { $0 + $1.squaredNorm }.squareRoot()
        result.blocks?.svdRelativeError = nil
      }
      return result
    }
    if let maximumError {
      let above = results.compactMap { record in
        record.blocks.flatMap { $0.metricRelativeError ?? $0.relativeError }.map { (record.name, $0) }
      }
      .filter { $0.1 > maximumError }
      guard above.isEmpty else { throw ConversionError.errorAboveMaximum(maximum: maximumError, tensors: above) }
    }
    source.files = checkpoint.files.indices.compactMap { fingerprints[$0] }
    return try writer.finish(
      records: results, generator: generator,
      source: source, conversion: recipe, companions: checkpoint.companions.map(Companion.init(ofModel:)),
      from: checkpoint.folder,
      part: part)
  }

  private enum WorkItem: Sendable {
    /// What is no operator.
    case tensor(Int)
    case block(Int, Int)
    /// What is several matrices at once.
    case link(Int)
    case fingerprint(Int)
  }

  /// The source's files, then the tensors and the blocks of tensors, largest first.
  private func work(on records: [TensorRecord], files: [Int], links: [LinkedBlocks]) -> [WorkItem] {
    let linked = Set(links.flatMap(\.blocks))
    func byteCount(_ place: LinkedBlocks.Place) -> Int {
      records[place.tensor].info.byteCount / (records[place.tensor].blocks?.blocks.count ?? 1)
    }
    let ownItems = records.enumerated().flatMap { index, record -> [(byteCount: Int, item: WorkItem)] in
      guard let count = record.blocks?.blocks.count else { return [(record.info.byteCount, .tensor(index))] }
      return (0..<count).map { LinkedBlocks.Place(tensor: index, block: $0) }.filter { !linked.contains($0) }
        .map { (byteCount($0), .block($0.tensor, $0.block)) }
    }
    let items =
      ownItems
      + links.enumerated().map { index, link in (link.blocks.reduce(0) { $0 + byteCount($1) }, .link(index)) }
    let largestFirst = items.enumerated().sorted {
      ($1.element.byteCount, $0.offset) < ($0.element.byteCount, $1.offset)
    }
    return files.map { .fingerprint($0) } + largestFirst.map(\.element.item)
  }

  private func decompose<Scalar: CheckpointScalar>(
    _ matrix: PlannedMatrix, as type: Scalar.Type, of checkpoint: any DenseCheckpoint, _ bases: StoredBases?,
    with writer: MPOCheckpointWriter
  ) throws -> OperatorErrors {
    let chain = matrix.chain
    return try (matrix.staysDense ? checkpoint : weights(of: checkpoint)).withMatrix(
      of: matrix.tensor, expert: matrix.expert, rows: chain.rows, columns: chain.columns
    ) { (view: MatrixView<Scalar>) in
      let metric = try LayerMetric(
        of: view, info: matrix.info, tensor: matrix.tensor, expert: matrix.expert, statistics, mask)
      if let bases, let metric {
        let stored = try writer.write(cores(of: view, chain, metric: metric, in: bases), of: chain)
        let restored = stored.matrix(rows: chain.rows, columns: chain.columns)
          .applying(rows: bases.rows, columns: bases.columns)
        return try errors(of: restored, to: view, matrix.tensor, matrix.expert, metric, checkpoint)
      }
      let stored = try write(cores(of: view, chain, metric: metric), of: view, matrix, metric, with: writer)
      // Only errors of several operators are weighted.
      let metricNorm = matrix.expert == nil ? nil : metric?.squaredNorm(of: view)
      let own =
        mask?.file == nil
        ? (relativeError(of: stored, to: view), view.squaredNorm)
        : try plainErrors(
          of: stored.matrix(rows: chain.rows, columns: chain.columns), to: view, matrix.tensor, matrix.expert,
          checkpoint)
      return OperatorErrors(
        relative: own.0, squaredNorm: own.1,
        metricRelative: metric?.relativeError(of: stored, to: view, squaredNorm: metricNorm),
        squaredMetricNorm: metricNorm ?? 1)
    }
  }
}
