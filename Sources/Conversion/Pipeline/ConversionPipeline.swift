import Checkpoints
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

/// How a conversion is carried out; nothing of it changes the result.
public struct ConversionOptions: Sendable {
  /// Matrices that are worked on at the same time.
  public var jobs: Int
  /// What the manifest says has written it.
  public var generator: String
  /// Where what is prepared of the metrics is kept until it is needed again, in an unnamed temporary file of at most the
  /// size of the statistics in double precision; nil to prepare it anew each time.
  public var scratchFolder: String?
  /// Called as matrices are finished, from any thread.
  public var progress: ProgressHandler
  /// Called with what the user should know although the work goes on.
  public var warning: @Sendable (String) -> Void

  /// Options for so many jobs; nothing is said on the way by default.
  public init(
    jobs: Int, generator: String, scratchFolder: String? = nil, progress: @escaping ProgressHandler = { _ in },
    warning: @escaping @Sendable (String) -> Void = { _ in }
  ) {
    self.jobs = jobs
    self.generator = generator
    self.scratchFolder = scratchFolder
    self.progress = progress
    self.warning = warning
  }
}

/// Converts a dense checkpoint: profiles its matrices, plans their bonds, decomposes and writes them.
///
/// - Parameters:
///   - source: what is converted.
///   - recipe: what the conversion is to be.
///   - statistics: those that the recipe names; nil for a recipe without a metric.
///   - mask: the file that the recipe names; nil for a recipe without a mask, or with one of zeros.
///   - folder: an empty folder, which becomes the MPO checkpoint.
///   - options: how it is carried out.
/// - Returns: the manifest, with measured errors.
/// - Throws: `StatisticsMismatch`, `MaskMismatch`, `RecipeConflict`, `ConversionError`, `SqueezeError`, and the errors of reading and
///   writing.
@discardableResult
public func convert(
  _ source: any DenseCheckpoint, recipe: ConversionRecipe, statistics: CalibrationStatistics? = nil,
  mask: MaskFile? = nil, to folder: String, options: ConversionOptions
) throws -> CheckpointManifest {
  let pipeline = try ConversionPipeline(source, recipe: recipe, statistics: statistics, mask: mask, options: options)
  return try pipeline.decompose(pipeline.plan(pipeline.profile()), to: folder)
}

/// The stages of a conversion, one after the other or each alone.
///
/// ```swift
/// let pipeline = try ConversionPipeline(source, recipe: recipe, statistics: nil, options: options)
/// let plan = try pipeline.plan(pipeline.profile())
/// try pipeline.decompose(plan, to: folder)
/// ```
public struct ConversionPipeline: Sendable {
  /// What is converted.
  public let source: any DenseCheckpoint
  /// What the conversion is to be.
  public let recipe: ConversionRecipe
  let statistics: CalibrationStatistics?
  private let mask: NetworkMask?
  private let options: ConversionOptions
  /// Found once, for all stages.
  let ties: [TensorName: TensorInfo]
  private let kept: KeptTensors
  private let cachedBases = CachedBases()
  /// nil where a profile is not followed by a decomposition, or nothing can be kept.
  private var reductions: KeptReductions?

  /// What the manifest says has written it.
  var generator: String { options.generator }

  /// - Parameters:
  ///   - source: what is converted.
  ///   - recipe: what the conversion is to be.
  ///   - statistics: those that the recipe names; nil for a recipe without a metric.
  ///   - mask: the file that the recipe names; nil for a recipe without a mask, or with one of zeros.
  ///   - options: how it is carried out.
  ///   - passes: how many stages will look at the matrices: 2 for a profile and a decomposition.
  /// - Throws: `StatisticsMismatch` and `MaskMismatch` when the statistics and the mask are not those of the recipe,
  ///   `RecipeConflict` for members of it that do not go together, and the errors of reading.
  public init(
    _ source: any DenseCheckpoint, recipe: ConversionRecipe, statistics: CalibrationStatistics? = nil,
    mask: MaskFile? = nil, options: ConversionOptions, passes: Int = 2
  ) throws {
    if let conflict = recipe.conflict() { throw conflict }
    self.source = source
    self.recipe = recipe
    self.options = options
    var statistics = try statistics.checked(against: recipe.metric)
    if let folder = options.scratchFolder { try statistics?.keepPreparedMetrics(passes: passes, in: folder) }
    self.statistics = statistics
    self.mask = try NetworkMask(recipe.mask, mask)
    ties = try TiedTensors.find(in: source)
    source.notices.forEach(options.warning)
    kept = try KeptTensors(of: source, ModelConfiguration(of: source), include: recipe.selection.include)
    kept.notices.forEach(options.warning)
    if let folder = options.scratchFolder, passes > 1 {
      reductions = KeptReductions(for: try network.matrices, in: folder)
    }
  }

  /// Computes what the recipe's plan needs to know of every matrix, in parallel.
  ///
  /// - Parameter part: the part of the matrices to profile; nil for all of them.
  /// - Throws: `ConversionError` for a selection that does not fit the checkpoint.
  public func profile(part: SourceNetwork.Part? = nil) throws -> NetworkProfile {
    let network = try self.network
    if let warning = try statistics?.warning(for: network) { options.warning(warning) }
    if let warning = try mask?.file?.check(against: network) { options.warning(warning) }
    try mask?.requireEffect(on: network)
    let (profile, warnings) = try network.profile(
      for: recipe, part: part, statistics: statistics, bases: bases(of: network), reductions: reductions,
      jobs: options.jobs, progress: options.progress)
    warnings.forEach(options.warning)
    return profile
  }

  var network: SourceNetwork {
    get throws {
      var network = try SourceNetwork(source, selection: recipe.selection, ties: ties, kept: kept)
      network.mask = mask
      return network
    }
  }

  /// The bases of the chains, computed once; nil for a recipe without.
  private func bases(of network: SourceNetwork) throws -> NetworkBases? {
    guard let statistics, recipe.usesBases else { return nil }
    return try cachedBases.bases {
      try NetworkBases(of: network.matrices, statistics, rules: recipe.spaces, jobs: options.jobs)
    }
  }

  /// Which bond goes where.
  /// - Throws: `ConversionError` for ties that match nothing and a budget that can't be reached.
  public func plan(_ profile: NetworkProfile) throws -> SqueezePlan {
    try recipe.plan(profile, path: source.path, sourceDType: sourceDType) {
      // Tied tensors are not profiled, and cost nothing.
      recipe.selection.largestDenseTensors(
        of: source, profiled: Set(profile.layers.map { TensorName($0.name) }).union(ties.keys))
    }
  }

  /// The coarsest dtype in half precision that matrices have; nil where none is in half precision.
  /// - Throws: `ConversionError` for a selection that does not fit the checkpoint.
  public var sourceDType: DType? {
    get throws {
      let dtypes = Set(try network.matrices.map(\.tensor.dtype))
      return [.bf16, .f16].first { dtypes.contains($0) }
    }
  }

  /// Decomposes the matrices and writes everything.
  ///
  /// - Parameters:
  ///   - plan: which bond goes where.
  ///   - folder: an empty folder.
  ///   - part: the part of the tensors to write; nil for all of them.
  /// - Returns: the manifest, with measured errors.
  /// - Throws: `ConversionError.mismatch` when the plan is not for this checkpoint, `.errorAboveMaximum`, and the errors
  ///   of reading and writing.
  @discardableResult
  public func decompose(
    _ plan: SqueezePlan, to folder: String, part: SourceNetwork.Part? = nil
  ) throws -> CheckpointManifest {
    var converter = try converter()
    converter.part = part
    return try converter.convert(source, plan: plan, to: folder, progress: options.progress)
  }

  func converter() throws -> Converter {
    var converter = Converter(recipe: recipe, jobs: options.jobs, generator: options.generator)
    converter.statistics = statistics
    converter.mask = mask
    converter.ties = ties
    converter.kept = kept
    converter.reductions = reductions
    let network = try self.network
    _ = try mask?.file?.check(against: network)
    converter.bases = try bases(of: network)
    return converter
  }

  /// What `decompose` would store, and with which errors, as far as the plan knows: nothing is decomposed or written.
  ///
  /// - Returns: a manifest without files, the errors that the plan expects in the place of measured ones. Its bytes are
  ///   those before packing.
  /// - Throws: `ConversionError.mismatch` when the plan is not for this checkpoint.
  public func preview(_ plan: SqueezePlan) throws -> CheckpointManifest {
    let contents = try converter().contents(of: source, plan: plan, ties: ties)
    return CheckpointManifest(
      generator: options.generator, source: nil, shards: [], companions: [], conversion: recipe,
      contents: contents.expecting(plan, inMetric: recipe.hasMetric))
  }

  /// What the conversion takes, reckoned from the sizes of the matrices.
  /// - Throws: `ConversionError` for a selection that does not fit the checkpoint.
  public func cost() throws -> ConversionCost {
    ConversionCost(
      of: try network.matrices, bytes: source.tensors.reduce(0) { $0 + $1.byteCount }, recipe,
      inMetric: mask != nil
        ? { _ in true } : statistics.map { statistics in { statistics.matrices.contains(TensorName($0)) } })
  }

  /// The matrices that are to be decomposed, and their elements.
  /// - Throws: `ConversionError` for a selection that does not fit the checkpoint.
  public func selected() throws -> (matrices: Int, elements: Int) {
    let matrices = try network.matrices
    return (matrices.count, matrices.reduce(0) { $0 + $1.rows * $1.columns })
  }
}

extension ConversionRecipe {
  /// Plans a network as the recipe says.
  ///
  /// - Parameters:
  ///   - path: of the profile or the checkpoint, for messages.
  ///   - sourceDType: the dtype of a network in half precision, whose cores get it where the recipe says nothing else.
  ///   - largestDense: the largest tensors that are not to be decomposed, for the message of a ratio out of reach.
  /// - Throws: `ConversionError` for ties that match nothing and a budget that can't be reached.
  public func plan(
    _ network: NetworkProfile, path: String, sourceDType: DType? = nil, largestDense: () -> String? = { nil }
  ) throws -> SqueezePlan {
    guard let budget else { throw ConversionError.stageFile(path: path, reason: "its recipe has no budget") }
    do {
      // A profile that was made before the budget was known may have more: the plan must not depend on that.
      var network = network
      network.layers = network.layers.map { layer in
        layer.limited(
          to: LayerProfile.measurements(
            for: structure, budget, hasMetric: layer.metricSingularValues != nil,
            hasBases: layer.basisSpectra != nil))
      }
      if !usesBases { network.basisParameters = nil }
      if !budget.isOfBytes { (network.bytes, network.tiedBytes) = (nil, nil) }
      if links.isEmpty { network.links = nil }
      if sharedCentres.isEmpty { network.centres = nil }
      let settings = curveSettings(sourceDType: sourceDType)
      return try SqueezePlan(
        network, budget: budget, criterion: criterion, ties: network.ties(ties, path: path),
        minimumBond: settings.minimumBond, alignment: settings.alignment, structure: settings.structure,
        factorSites: settings.factorSites, gauge: settings.gauge, rounding: settings.rounding,
        elementBytes: dtype.map { $0.bitWidth / 8 })
    } catch let error as SqueezeError {
      var reason = error.description
      if case .ratioOutOfReach = error, let tensors = largestDense() {
        reason += "; the largest tensors that stay dense: \(tensors)"
      }
      throw ConversionError.stageFile(path: path, reason: reason)
    }
  }
}

extension ConversionRecipe {
  /// Whether errors are measured in a metric: of statistics, or of what a mask keeps.
  package var hasMetric: Bool { metric != nil || mask != nil }

  /// How a plan by the recipe counts errors and numbers.
  /// - Parameter sourceDType: of a network in half precision.
  package func curveSettings(sourceDType: DType?) -> CurveSettings {
    CurveSettings(
      structure: structure, minimumBond: minimumBond, alignment: alignment, factorSites: depth,
      gauge: depth > 2 ? .canonical : gauge,
      rounding: RoundingError(of: dtype ?? (budget == .lossless ? nil : sourceDType)))
  }
}

extension LayerProfile {
  /// Without the measurements that are not in `measurements`.
  fileprivate func limited(to measurements: Set<Measurement>) -> LayerProfile {
    LayerProfile(
      name: name, split: split, norm: norm, spectra: measurements.contains(.spectra) ? spectra : nil,
      singularValues: measurements.contains(.singularValues) ? singularValues : nil,
      metricSingularValues: measurements.contains(.metricSingularValues) ? metricSingularValues : nil,
      basisSpectra: measurements.contains(.basisSpectra) ? basisSpectra : nil,
      storage: measurements.contains(.storage) ? storage : nil)
  }
}

extension RoundingError {
  fileprivate init(of dtype: DType?) {
    switch dtype {
    case .bf16: self = .bfloat16
    case .f16: self = .float16
    default: self = .negligible
    }
  }
}
