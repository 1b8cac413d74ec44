import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

/// A dense checkpoint seen as a stacked network: the matrices to decompose, what is tied, and the rest.
public struct SourceNetwork: Sendable {
  /// The checkpoint that the matrices are of.
  public let checkpoint: any DenseCheckpoint
  package let matrices: [WeightMatrix]
  /// Tensors that are the same bytes as another.
  package let ties: [TensorName: TensorInfo]
  /// Tensors that stay as they are, whatever the recipe says.
  let kept: KeptTensors
  /// What of the matrices counts; nil for all of them.
  var mask: NetworkMask?

  /// - Throws: `ConversionError` for a selection that does not fit the checkpoint.
  public init(_ checkpoint: any DenseCheckpoint, selection: TensorSelection) throws {
    try self.init(
      checkpoint, selection: selection, ties: TiedTensors.find(in: checkpoint),
      kept: KeptTensors(of: checkpoint, ModelConfiguration(of: checkpoint), include: selection.include))
  }

  /// - Parameter ties: what `TiedTensors.find` found.
  init(
    _ checkpoint: any DenseCheckpoint, selection: TensorSelection, ties: [TensorName: TensorInfo], kept: KeptTensors
  ) throws {
    self.checkpoint = checkpoint
    self.ties = ties
    self.kept = kept
    matrices = try selection.matrices(of: checkpoint, kept: kept).filter { ties[$0.tensor.key] == nil }
  }

  /// A part of the work, for profiles that are made on several machines.
  public struct Part: Sendable, Hashable, Codable {
    /// From 1.
    public let index: Int
    /// How many parts there are.
    public let count: Int

    /// nil unless `index` is from 1 to `count`.
    public init?(index: Int, count: Int) {
      guard count >= 1, (1...count).contains(index) else { return nil }
      self.index = index
      self.count = count
    }

    /// - Throws: `DecodingError` for numbers that are no part.
    public init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      let index = try container.decode(Int.self, forKey: .index)
      let count = try container.decode(Int.self, forKey: .count)
      guard let part = Part(index: index, count: count) else {
        throw DecodingError.dataCorruptedError(
          forKey: .index, in: container, debugDescription: "\(index)/\(count) is not a part")
      }
      self = part
    }
  }

  /// Computes norms, and what else the plan needs, of the matrices, in parallel.
  ///
  /// Matrices that cores could not give back are left out: they stay dense.
  /// - Parameters:
  ///   - recipe: its structure and budget say what is needed; while it has no budget, what any ratio needs.
  ///   - part: the part of the matrices to profile; nil for all of them.
  ///   - statistics: those of the metric; nil for the Frobenius norm.
  ///   - jobs: matrices that are worked on at the same time.
  ///   - progress: called as matrices are finished.
  /// - Returns: the profile, and a warning for every matrix that was left out.
  /// - Throws: `ConversionError`, `LinearAlgebraError`, and the errors of reading.
  public func profile(
    for recipe: ConversionRecipe, part: Part? = nil, statistics: CalibrationStatistics? = nil, jobs: Int,
    progress: @escaping ProgressHandler = { _ in }
  ) throws -> (profile: NetworkProfile, warnings: [String]) {
    try profile(
      for: recipe, part: part, statistics: statistics, bases: nil, reductions: nil, jobs: jobs, progress: progress)
  }

  /// - Parameters:
  ///   - bases: those of the chains; nil for none.
  ///   - reductions: takes what decompositions will need again.
  func profile(
    for recipe: ConversionRecipe, part: Part?, statistics: CalibrationStatistics?, bases: NetworkBases?,
    reductions: KeptReductions?, jobs: Int, progress: @escaping ProgressHandler
  ) throws -> (profile: NetworkProfile, warnings: [String]) {
    let links = try links(of: recipe)
    let centres = try centres(of: recipe)
    let centred = Set(centres.flatMap(\.members))
    let chosen =
      try part.map { try division(into: $0.count, for: recipe, hasMetric(statistics))[$0.index - 1] } ?? largestFirst
    let counter = ProgressCounter(
      .profile, total: chosen.reduce(0) { $0 + matrices[$1].rows * matrices[$1].columns }, progress)
    let layers = ParallelResults<LayerProfile>(count: matrices.count)
    let unfit = ParallelResults<String>(count: matrices.count)
    BLASThreads.use(1)
    try forEachInParallel(chosen, jobs: jobs) { index in
      do {
        layers[index] = try layerProfile(
          of: matrices[index], recipe, statistics, bases?[matrices[index].name], reductions,
          isCentred: centred.contains(index))
      } catch let error as UnfitMatrix {
        unfit[index] = error.reason
      }
      counter.finished(matrices[index].name, elements: matrices[index].rows * matrices[index].columns)
    }
    var unusable: Set<TensorName> = []
    let warnings = chosen.sorted().filter {
      layers[$0] == nil && unusable.insert(matrices[$0].tensor.key).inserted
    }.map {
      "tensor '\(escaped(matrices[$0].tensor.name))' has \(unfit[$0] ?? ""); it stays dense"
    }
    let together = links.filter { link in
      link.members.allSatisfy { layers[$0] != nil && !unusable.contains(matrices[$0].tensor.key) }
    }
    let linked = ParallelResults<LinkProfile>(count: together.count)
    try forEachInParallel(Array(together.indices), jobs: jobs) {
      linked[$0] = try profile(of: together[$0], statistics)
    }
    let countsBytes = recipe.budget?.isOfBytes != false
    let network = NetworkProfile(
      parameters: checkpoint.tensors.reduce(0) { $0 + (isTrainingState($1) ? 0 : $1.elementCount) },
      tiedParameters: ties.keys.reduce(0) { sum, name in
        guard let tensor = checkpoint.tensor(named: name.text), !isTrainingState(tensor) else { return sum }
        return sum + tensor.elementCount
      },
      basisParameters: bases?.parameterCount,
      layers: matrices.indices.compactMap { unusable.contains(matrices[$0].tensor.key) ? nil : layers[$0] },
      links: recipe.links.isEmpty ? nil : together.indices.compactMap { linked[$0] },
      centres: centres.isEmpty
        ? nil
        : centres.filter { centre in
          centre.members.allSatisfy { layers[$0] != nil && !unusable.contains(matrices[$0].tensor.key) }
        }.map(\.centre),
      bytes: countsBytes ? checkpoint.tensors.reduce(0) { $0 + $1.byteCount } : nil,
      tiedBytes: countsBytes
        ? ties.keys.reduce(0) { $0 + (checkpoint.tensor(named: $1.text)?.byteCount ?? 0) } : nil)
    return (network, warnings)
  }

  /// The matrices, those with the most elements first.
  private var largestFirst: [Int] {
    matrices.indices.sorted {
      (matrices[$1].tensor.elementCount, $0) < (matrices[$0].tensor.elementCount, $1)
    }
  }

  /// The matrices of each of `count` parts of the profile, largest first. All parts cost about the same; what is stacked in one
  /// tensor stays together, and so does what is linked.
  func division(
    into count: Int, for recipe: ConversionRecipe, _ hasMetric: (String) -> Bool
  ) throws -> [[Int]] {
    let linked = try links(of: recipe).map(\.members) + centres(of: recipe).map(\.members)
    let holders = LinkHolders(linked.map { $0.map { matrices[$0].tensor.key } })
    var groups: [TensorName: Int] = [:]
    var costs: [Double] = []
    let order = largestFirst
    let groupOf = order.map { index in
      let key = holders[matrices[index].tensor.key]
      let group = groups[key] ?? costs.count
      groups[key] = group
      if group == costs.count { costs.append(0) }
      costs[group] += profileCost(of: matrices[index], recipe, hasMetric: hasMetric(matrices[index].name))
      return group
    }
    let parts = BalancedParts(of: costs, count: count).parts
    var result = Array(repeating: [Int](), count: count)
    for (index, group) in zip(order, groupOf) { result[parts[group]].append(index) }
    return result
  }

  /// What the profile of a matrix costs, in operations.
  private func profileCost(of matrix: WeightMatrix, _ recipe: ConversionRecipe, hasMetric: Bool) -> Double {
    MatrixCost(of: matrix, recipe, hasMetric: hasMetric).profile
      + Double(matrix.tensor.byteCount / (matrix.expert == nil ? 1 : max(1, matrix.tensor.shape[0])))
      * MatrixCost.operationsPerByte
  }

  /// Tells whether errors of the matrix of a name are measured in a metric.
  func hasMetric(_ statistics: CalibrationStatistics?) -> (String) -> Bool {
    if mask != nil { return { _ in true } }
    let measured = statistics?.matrices ?? []
    return { measured.contains(TensorName($0)) }
  }

  /// The checkpoint whose matrices are decomposed: the masked one, where there is a mask.
  var weights: any DenseCheckpoint { mask?.applied(to: checkpoint) ?? checkpoint }

  /// What is to be said of tensors that stay as they are, a sentence for each kind.
  package var notices: [String] { kept.notices }

  /// Whether a tensor belongs to training and not to the model.
  package func isTrainingState(_ tensor: TensorInfo) -> Bool { kept.reason(for: tensor) == .trainingState }

  private func layerProfile(
    of matrix: WeightMatrix, _ recipe: ConversionRecipe, _ statistics: CalibrationStatistics?,
    _ bases: NetworkBases.OfMatrix?, _ reductions: KeptReductions?, isCentred: Bool
  ) throws -> LayerProfile {
    matrix.tensor.dtype == .f64
      ? try layerProfile(of: matrix, recipe, statistics, bases, reductions, isCentred: isCentred, as: Double.self)
      : try layerProfile(of: matrix, recipe, statistics, bases, reductions, isCentred: isCentred, as: Float.self)
  }

  private func layerProfile<Scalar: CheckpointScalar>(
    of matrix: WeightMatrix, _ recipe: ConversionRecipe, _ statistics: CalibrationStatistics?,
    _ bases: NetworkBases.OfMatrix?, _ reductions: KeptReductions?, isCentred: Bool, as type: Scalar.Type
  ) throws -> LayerProfile {
    let sourceNorm = try checkpoint.withMatrix(
      of: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns
    ) { (view: MatrixView<Scalar>) in try UnfitMatrix.checkedNorm(of: view, matrix.tensor.dtype, recipe) }
    return try weights.withMatrix(
      of: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns
    ) {
      (view: MatrixView<Scalar>) in
      let metric = try LayerMetric(
        of: view, info: matrix.info, tensor: matrix.tensor, expert: matrix.expert, statistics, mask)
      // The manifest has that of the source, which is not masked.
      let norm = mask?.file == nil ? sourceNorm : view.norm
      let parts =
        isCentred
        ? []
        : LayerProfile.measurements(
          for: recipe.structure, recipe.budget, hasMetric: metric?.hasFactorization ?? false, hasBases: bases != nil)
      return LayerProfile(
        name: matrix.name, split: MatrixSplit(rows: matrix.rows, columns: matrix.columns, shape: matrix.shape),
        norm: norm,
        spectra: parts.contains(.spectra) ? try spectra(of: view, matrix, reductions) : nil,
        singularValues: parts.contains(.singularValues)
          ? try singularValues(of: view, matrix, reductions) : nil,
        metricSingularValues: parts.contains(.metricSingularValues)
          ? try metric?.singularValues(of: view) : nil,
        basisSpectra: try parts.contains(.basisSpectra)
          ? bases.map {
            try view.coordinates(rows: $0.rows, columns: $0.columns)
              .withView { try SingularSpectra(of: $0, shape: matrix.shape) }
          } : nil,
        storage: parts.contains(.storage)
          ? LayerProfile.Storage(
            elementBytes: max(1, matrix.tensor.dtype.bitWidth / 8),
            groupErrors: try metric?.groupErrors(of: view)
              ?? PreparedMetric(.frobenius).groupErrors(
                of: view, groups: LayerProfile.Storage.groups, squaredNorm: view.squaredNorm)) : nil)
    }
  }

  private func spectra<Scalar>(
    of view: MatrixView<Scalar>, _ matrix: WeightMatrix, _ reductions: KeptReductions?
  ) throws -> SingularSpectra {
    let found = try SingularSpectra.withReductions(of: view, shape: matrix.shape)
    if let own = found.reductions { reductions?.keep(own, of: matrix.name, matrix.shape) }
    return found.spectra
  }

  private func singularValues<Scalar>(
    of view: MatrixView<Scalar>, _ matrix: WeightMatrix, _ reductions: KeptReductions?
  ) throws -> [Double] {
    let found = try SingularSpectra.ofFactorizations(of: view)
    if let own = found.reductions {
      reductions?.keep(own, of: matrix.name, .lowRank(rows: view.rows, columns: view.columns))
    }
    return found.singularValues
  }
}
