import Checkpoints
import Files
import MPOCheckpoints
import Recipes
import Squeezing

extension ConversionPipeline {
  /// What each part of a conversion in `count` parts takes.
  ///
  /// - Parameters:
  ///   - count: how many parts there are.
  ///   - plan: says which matrices are decomposed; nil for all of them.
  ///   - jobs: matrices that a part works on at the same time.
  ///   - expectsStatistics: whether to reckon as if there were statistics of every matrix.
  /// - Throws: `ConversionError.mismatch` when the plan is not for this checkpoint.
  public func schedule(
    parts count: Int, _ plan: SqueezePlan?, jobs: Int, expectsStatistics: Bool = false
  ) throws -> [PartCost] {
    let network = try network
    var recipe = recipe
    if expectsStatistics { recipe.metric = StatisticsIdentity(sha256: "") }
    let hasMetric = expectsStatistics ? { _ in true } : network.hasMetric(statistics)
    let costs = network.matrices.map { MatrixCost(of: $0, recipe, hasMetric: hasMetric($0.name)) }
    func bytes(_ index: Int) -> Int {
      let tensor = network.matrices[index].tensor
      return tensor.byteCount / (network.matrices[index].expert == nil ? 1 : max(1, tensor.shape[0]))
    }
    let profiles = try network.division(into: count, for: recipe, hasMetric)
    let conversions = try conversions(network, plan, costs, into: count, jobs: jobs)
    return (0..<count).map { part in
      PartCost(
        index: part + 1,
        profile: PartCost.Stage(
          profiles[part].map { (costs[$0].profile, costs[$0].memory) },
          bytesMoved: profiles[part].reduce(0) { $0 + bytes($1) }, jobs: jobs),
        conversion: conversions[part])
    }
  }

  private func conversions(
    _ network: SourceNetwork, _ plan: SqueezePlan?, _ costs: [MatrixCost], into count: Int, jobs: Int
  ) throws -> [PartCost.Stage] {
    if let plan {
      let converter = try converter()
      let contents = try converter.contents(of: source, plan: plan, ties: ties)
      let hasMetric = converter.hasMetric
      return converter.division(of: contents, plan, into: count).map { positions in
        let records = positions.map { contents.tensors[$0] }
        return PartCost.Stage(
          records.flatMap { converter.costs(of: $0, in: contents, hasMetric) }.map { ($0.decomposition, $0.memory) },
          bytesMoved: 2 * records.reduce(0) { $0 + $1.info.byteCount }, jobs: jobs)
      }
    }
    // Which tensors stay dense is not known: all matrices are taken to be decomposed.
    let chosen = Dictionary(grouping: network.matrices.indices) { network.matrices[$0].tensor.key }
    let tensors = source.tensors.filter { ties[$0.key] == nil }
    let parts = BalancedParts(
      of: tensors.map { tensor in
        (chosen[tensor.key] ?? []).reduce(Double(tensor.byteCount) * MatrixCost.operationsPerByte) {
          $0 + costs[$1].decomposition
        }
      }, count: count
    ).parts
    let own = Dictionary(grouping: tensors.indices) { parts[$0] }
    return (0..<count).map { part in
      let tensors = (own[part] ?? []).map { tensors[$0] }
      return PartCost.Stage(
        tensors.flatMap { chosen[$0.key] ?? [] }.map { (costs[$0].decomposition, costs[$0].memory) },
        bytesMoved: 2 * tensors.reduce(0) { $0 + $1.byteCount }, jobs: jobs)
    }
  }

  // MARK: - Work that is done already

  /// Whether a profile is what `profile(part:)` of this pipeline would make, as far as that is known without its spectra: the
  /// recipe, the part, and the matrices with their sides.
  /// - Throws: `ConversionError` and the errors of reading.
  public func made(_ profile: StageFile.Profile, part: SourceNetwork.Part?) throws -> Bool {
    guard profile.part == part, isSame(profile.recipe), try profile.sourceDType == sourceDType else { return false }
    let network = try network
    let indices =
      try part.map { try network.division(into: $0.count, for: recipe, network.hasMetric(statistics))[$0.index - 1] }
      ?? Array(network.matrices.indices)
    let matrices = Dictionary(
      indices.map { (TensorName(network.matrices[$0].name), network.matrices[$0]) }, uniquingKeysWith: { a, _ in a })
    let parameters = source.tensors.reduce(0) { $0 + (network.isTrainingState($1) ? 0 : $1.elementCount) }
    // A matrix with NaN in it is in no profile.
    return profile.network.parameters == parameters && profile.network.layers.count <= matrices.count
      && profile.network.layers.allSatisfy { layer in
        matrices[TensorName(layer.name)].map {
          $0.rows == layer.rows && $0.columns == layer.columns && $0.shape == layer.shape
        } ?? false
      }
  }

  /// Whether an MPO checkpoint is what `decompose(plan, part:)` of this pipeline would write, as far as that is known without
  /// the weights: the program, the recipe, the part, the names and sizes of the source's files, and with a plan every
  /// operator with its bonds.
  /// - Parameters:
  ///   - checkpoint: what was written before.
  ///   - plan: nil where it is not made yet.
  ///   - part: the part that it should be; nil for all.
  /// - Throws: `ConversionError` and the errors of reading.
  public func made(_ checkpoint: MPOCheckpoint, _ plan: SqueezePlan?, part: SourceNetwork.Part?) throws -> Bool {
    let manifest = checkpoint.manifest
    guard manifest.generator == generator, manifest.squeeze == nil, manifest.conversion.map(isSame) ?? false,
      manifest.part?.index == part?.index, manifest.part?.count == part?.count
    else { return false }
    if part != nil {
      guard manifest.part?.files?.sample == (try FileSample.digest(ofFilesAt: source.files)) else { return false }
    } else {
      guard let files = manifest.source?.files, files.count == source.files.count else { return false }
      for (file, path) in zip(files, source.files) {
        guard file.bytes == (try FileStatus(at: path)?.byteCount) else { return false }
      }
    }
    guard let plan else {
      return manifest.contents.tensors.map(\.info) == source.tensors
    }
    let converter = try converter()
    let all = try converter.contents(of: source, plan: plan, ties: ties)
    let expected =
      part.map { all.selecting(converter.division(of: all, plan, into: $0.count)[$0.index - 1]) } ?? all
    func forms(_ contents: CheckpointContents) -> [String] {
      contents.operators.map { "\($0.name) \($0.shape) \($0.bonds) \($0.gauge)" }
    }
    func encodings(_ contents: CheckpointContents) -> [String] {
      contents.cores.map { "\($0.name) \($0.shape) \($0.role) \($0.entries.map(\.dtype))" }
    }
    return expected.tensors.map(\.info) == manifest.contents.tensors.map(\.info)
      && expected.tensors.map(\.isDense) == manifest.contents.tensors.map(\.isDense)
      && forms(expected) == forms(manifest.contents) && encodings(expected) == encodings(manifest.contents)
  }

  /// Byte for byte: names that only look the same are different.
  private func isSame(_ other: ConversionRecipe) -> Bool {
    other == recipe && other.values.mapValues { TensorName($0) } == recipe.values.mapValues { TensorName($0) }
  }
}
