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

  /// A converter that works on so many matrices at a time.
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

  /// What will be stored: for every tensor of the source its record, with the operators and cores that the plan gives it.
  func contents(
    of checkpoint: any DenseCheckpoint, plan: SqueezePlan, ties: [TensorName: TensorInfo]
  ) throws -> CheckpointContents {
    var layers = Dictionary(plan.layers.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    let kept =
      self.kept
      ?? KeptTensors(checkpoint.tensors, ModelConfiguration(of: checkpoint), include: recipe.selection.include)
    for rule in recipe.encodings where !plan.layers.contains(where: { matches(rule.glob, $0.name) }) {
      throw ConversionError.globMatchesNothing(member: "encodings", glob: rule.glob, path: checkpoint.path)
    }
    var contents = CheckpointContents()
    let links = try LinkedRanges(of: plan, in: checkpoint)
    for tensor in checkpoint.tensors {
      let layer = layers.removeValue(forKey: tensor.key)
      let experts = layer == nil ? takeExperts(of: tensor, from: &layers, in: checkpoint) : []
      var record = TensorRecord(dense: tensor)
      record.isTrainingState = kept.reason(for: tensor) == .trainingState
      if let target = ties[tensor.key] {
        record.storage = .tied(to: target.name)
      } else if let layer, layer.bonds != nil || CoreEncodings(of: layer, recipe).central != nil {
        let own = try planned(
          layer, in: tensor, WeightMatrix.sides(of: tensor, convolutions: true), links, checkpoint)
        var blocks = BlockMatrix(rows: layer.rows, columns: layer.columns, blocks: [own.terms])
        (blocks.svdRelativeError, blocks.norm) = (layer.svdRelativeError, layer.norm)
        record.storage = .blocks(blocks)
        contents.append(record, operators: own.operators, cores: own.cores)
        continue
      } else if experts.contains(where: { $0.bonds != nil || CoreEncodings(of: $0, recipe).central != nil }) {
        guard experts.count == tensor.shape[0] else {
          throw ConversionError.mismatch(
            path: checkpoint.path, tensor: tensor.name,
            reason:
              "is a stack of \(tensor.shape[0]) matrices, the plan has \(experts.count) of them; make a plan of this model"
          )
        }
        let sides = WeightMatrix.stackedSides(of: tensor)
        let chains = try experts.map { try planned($0, in: tensor, sides, links, checkpoint) }
        var blocks = BlockMatrix(
          rows: tensor.shape[0] * tensor.shape[1], columns: tensor.shape[2],
          blocks: chains.map(\.terms))
        (blocks.svdRelativeError, blocks.norm) = OperatorErrors.joined(
          experts.map { ($0.bonds == nil ? 0 : $0.svdRelativeError, $0.norm * $0.norm) })
        record.storage = .blocks(blocks)
        contents.append(record, operators: chains.flatMap(\.operators), cores: chains.flatMap(\.cores))
        continue
      }
      contents.append(record)
    }
    if let missing = layers.keys.min() {
      throw ConversionError.mismatch(
        path: checkpoint.path, tensor: missing.text,
        reason: "is in the plan but not in the model; make a plan of this model")
    }
    return contents
  }

  /// The layers that the plan has for the matrices that are stacked in a tensor.
  private func takeExperts(
    of tensor: TensorInfo, from layers: inout [TensorName: SqueezePlan.Layer], in checkpoint: any DenseCheckpoint
  ) -> [SqueezePlan.Layer] {
    guard tensor.shape.count == 3, layers[TensorName(WeightMatrix.name(ofExpert: 0, in: tensor))] != nil,
      !WeightMatrix.isAmbiguous(tensor, in: checkpoint)
    else { return [] }
    return (0..<tensor.shape[0]).compactMap {
      layers.removeValue(forKey: TensorName(WeightMatrix.name(ofExpert: $0, in: tensor)))
    }
  }

  private typealias PlannedOperators = (terms: [BlockMatrix.Term], operators: [OperatorRecord], cores: [CoreRecord])

  /// The operators that a layer becomes: one, or one and what is added to it. An expert that stays dense in a tensor whose others do not becomes the operator
  /// that has its very elements: a factorisation at full rank, one factor of which is the identity and not stored.
  /// - Parameter sides: of the matrix, as the tensor has them.
  private func planned(
    _ layer: SqueezePlan.Layer, in tensor: TensorInfo, _ sides: (rows: Int, columns: Int)?, _ links: LinkedRanges,
    _ checkpoint: any DenseCheckpoint
  ) throws -> PlannedOperators {
    func mismatch(_ reason: String) -> ConversionError {
      .mismatch(path: checkpoint.path, tensor: layer.name, reason: reason)
    }
    guard let sides, sides == (layer.rows, layer.columns) else {
      throw mismatch(
        "is \(tensor.dtype.rawValue) \(tensor.shape), the plan is for \(layer.rows) × \(layer.columns); "
          + "make a profile and a plan of this model")
    }
    let encodings = CoreEncodings(of: layer, recipe)
    guard let bonds = layer.bonds else {
      let split = MatrixSplit.lowRank(rows: layer.rows, columns: layer.columns)
      let (chain, cores) = OperatorRecord.ordinary(
        name: layer.name, split, bonds: split.shape.fullBonds, gauge: .compact, dtype: tensor.dtype)
      return ([BlockMatrix.Term(chain.name)], [chain], encodings.applied(to: cores))
    }
    let dtype = coreDType ?? defaultCoreDType(for: tensor.dtype)
    if layer.link != nil {
      guard let (term, link) = links[layer] else {
        throw mismatch("its plan lacks the operator in which it is linked; make the plan again")
      }
      let (chain, cores) = OperatorRecord.ordinary(
        name: link.name, link.split, bonds: link.bonds, gauge: link.gauge, dtype: dtype, central: recipe.central)
      return ([term], [chain], encodings.applied(to: cores))
    }
    guard TensorSelection.fits(layer.shape, rows: layer.rows, columns: layer.columns),
      bonds.count == layer.shape.siteCount - 1
    else {
      throw mismatch(
        "its plan, bonds \(bonds) of the factors \(layer.shape), contradicts itself; make the plan again")
    }
    let bases = layer.shape.siteCount > 2 ? bases?[layer.name] : nil
    if let centre = layer.centre {
      guard bonds == layer.shape.fullBonds, layer.gauge == .canonical, layer.shape.siteCount > 2 else {
        throw mismatch("its plan contradicts itself; make the plan again")
      }
      let (chain, cores) = OperatorRecord.sharing(
        centre, name: layer.name, layer.split, bonds: bonds, dtype: dtype, central: recipe.central)
      guard let rank = links.residualRank(ofCentre: centre) else {
        return ([BlockMatrix.Term(chain.name)], [chain], encodings.applied(to: cores))
      }
      let split = MatrixSplit.lowRank(rows: layer.rows, columns: layer.columns)
      guard split.shape.limitedBonds([rank]) == [rank] else {
        throw mismatch("its plan contradicts itself; make the plan again")
      }
      let residual = OperatorRecord.ordinary(
        name: layer.name + ".residual", split, bonds: [rank], gauge: recipe.gauge, dtype: dtype, central: recipe.central
      )
      return (
        [chain.name, residual.operator.name].map { BlockMatrix.Term($0) }, [chain, residual.operator],
        encodings.applied(to: cores + residual.cores)
      )
    }
    let (chain, cores) = OperatorRecord.ordinary(
      name: layer.name, layer.split, bonds: layer.shape.limitedBonds(bonds), gauge: layer.gauge, dtype: dtype,
      central: recipe.central, rowBasis: bases?.rowRecord.orNil, columnBasis: bases?.columnRecord.orNil,
      entropies: layer.entropies)
    return ([BlockMatrix.Term(chain.name)], [chain], encodings.applied(to: cores))
  }

  private func defaultCoreDType(for source: DType) -> DType {
    isLossless && source.bitWidth < 32 ? .f32 : source
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

extension Converter {
  /// Writes the cores of one matrix; integers of a factorisation are rounded so that the error in its metric is small.
  private func write<Scalar: CheckpointScalar>(
    _ cores: GaugedMPO<Scalar>, of view: MatrixView<Scalar>, _ matrix: PlannedMatrix, _ metric: LayerMetric?,
    with writer: MPOCheckpointWriter
  ) throws -> MPO<Scalar> {
    let chain = matrix.chain
    let centre = chain.shape.centralIndex
    let integers = matrix.integers
    guard chain.shape.isFactored, chain.shape.siteCount == 2, chain.gauge != .spectral,
      integers.contains(where: { $0 != nil })
    else { return try writer.write(cores, of: chain) }
    let rounded = try (metric?.rounding ?? PreparedMetric(.frobenius)).rounded(
      cores, of: view, central: integers[centre], auxiliary: integers[1 - centre])
    return try writer.write(rounded.gauged, rounded: rounded.cores, of: chain)
  }

  /// The cores of one matrix, in the gauge of their record: in a metric, the best factorisation for two sites, refined ones
  /// for more. At full bonds nothing is lost in any metric.
  func cores<Scalar>(
    of view: MatrixView<Scalar>, _ chain: OperatorRecord, metric: LayerMetric?
  ) throws -> GaugedMPO<Scalar> {
    if chain.shape.isFactored, chain.shape.siteCount == 2, chain.gauge == .compact, chain.bonds == chain.shape.fullBonds
    {
      return GaugedMPO(whole: view)
    }
    if chain.shape.isDeep, metric?.hasFactorization != true {
      let shape = MPOShape.lowRank(rows: chain.rows, columns: chain.columns)
      let plain = try MPO(decomposing: view, shape: shape, bonds: [chain.bonds[0]])
      return try chain.gauged(
        metric.map { metric in
          try plain.refined(
            toward: view, metric: metric.forRefinement(rows: chain.rows, columns: chain.columns), options: refinement)
        } ?? plain)
    }
    guard let metric, chain.bonds != chain.shape.fullBonds || chain.shape.isDeep else {
      return try GaugedMPO(decomposing: view, shape: chain.shape, bonds: chain.bonds, gauge: chain.gauge)
    }
    if chain.shape.isFactored, let factorization = try metric.lowRank(of: view, rank: chain.bonds[0]) {
      return try chain.gauged(metric.refined(factorization, toward: view, options: refinement))
    }
    return try MPO(decomposing: view, shape: chain.shape, bonds: chain.bonds)
      .refined(
        toward: view, metric: metric.forRefinement(rows: chain.rows, columns: chain.columns), options: refinement
      ).gauged(chain.gauge)
  }
}

extension OperatorRecord {
  /// A factorisation of two sites as the operator has it.
  fileprivate func gauged<Scalar>(_ factorization: MPO<Scalar>) throws -> GaugedMPO<Scalar> {
    guard shape.isDeep else { return try factorization.gauged(gauge) }
    return GaugedMPO(gauge: .canonical, mpo: try factorization.deepened(sites: shape.siteCount))
  }
}

/// The bases of one operator, as they are stored.
struct StoredBases: Sendable {
  let rows: Basis
  let columns: Basis
}

extension OperatorRecord.BasisRecord {
  /// nil for the identity.
  fileprivate var orNil: OperatorRecord.BasisRecord? { cores.isEmpty ? nil : self }
}

extension Converter {
  /// Writes the bases that operators name, each once.
  /// - Returns: those of each operator, as they are stored.
  private func write(
    _ bases: NetworkBases?, of contents: CheckpointContents, with writer: MPOCheckpointWriter
  ) throws -> [TensorName: StoredBases] {
    guard let bases else { return [:] }
    var stored: [TensorName: [Double]] = [:]
    var result: [TensorName: StoredBases] = [:]
    for chain in contents.operators where chain.rowBasis != nil || chain.columnBasis != nil {
      guard let own = bases[chain.name] else { continue }
      for (name, values) in own.cores where stored[TensorName(name)] == nil {
        switch values {
        case .numbers(let numbers): stored[TensorName(name)] = try writer.write(numbers, ofCore: name)
        case .indices(let indices):
          try writer.write(permutation: indices, ofCore: name)
          stored[TensorName(name)] = []
        }
      }
      func basis(_ exact: Basis, _ record: OperatorRecord.BasisRecord) -> Basis {
        var rotation = exact.rotation
        if case .orthogonal(let vectors) = rotation, let elements = record.basis.flatMap({ stored[TensorName($0)] }) {
          rotation = .orthogonal(Matrix(rows: vectors.rows, columns: vectors.columns, elements: elements))
        }
        return Basis(rotation: rotation, scale: record.scale.flatMap { stored[TensorName($0)] })
      }
      result[TensorName(chain.name)] = StoredBases(
        rows: basis(own.rows, own.rowRecord), columns: basis(own.columns, own.columnRecord))
    }
    return result
  }

  /// The cores of one matrix in its bases, refined in its metric.
  private func cores<Scalar>(
    of view: MatrixView<Scalar>, _ chain: OperatorRecord, metric: LayerMetric, in bases: StoredBases
  ) throws -> GaugedMPO<Scalar> {
    try view.coordinates(rows: bases.rows, columns: bases.columns).withView { view in
      guard chain.bonds != chain.shape.fullBonds else {
        return try GaugedMPO(decomposing: view, shape: chain.shape, bonds: chain.bonds, gauge: chain.gauge)
      }
      return try MPO(decomposing: view, shape: chain.shape, bonds: chain.bonds)
        .refined(
          toward: view,
          metric: metric.forRefinement(rows: chain.rows, columns: chain.columns, inBases: true)
            .coordinates(rows: bases.rows, columns: bases.columns),
          options: refinement.inBases(rows: chain.rows, columns: chain.columns)
        ).gauged(chain.gauge)
    }
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
