import Checkpoints
import LinearAlgebra
import Squeezing
import TensorNetworks

/// The metric of one matrix in a conversion, ready for use: what the statistics say of the matrix, prepared by this pass or
/// by the one before, or what a mask keeps of it.
struct LayerMetric {
  /// nil for a mask.
  private let statistics: CalibrationStatistics?
  private let tensor: TensorInfo
  private let prepared: PreparedMetric
  /// What a mask weights; nil for statistics.
  private let mask: MaskMetric?
  /// What the pass before has kept of the whitened matrix.
  private let spectrum: WhitenedSpectrum?

  /// nil when the statistics do not speak of the matrix.
  /// - Throws: `ConversionError.mismatch` for statistics that are none of this matrix.
  init?(of tensor: TensorInfo, rows: Int, columns: Int, _ statistics: CalibrationStatistics) throws {
    guard let prepared = try statistics.preparedMetric(of: tensor, rows: rows, columns: columns) else { return nil }
    self.statistics = statistics
    self.tensor = tensor
    self.prepared = prepared
    mask = nil
    spectrum = try statistics.prepared?.spectrum(of: tensor.name, size: min(rows, columns))
  }

  /// Of what a mask keeps.
  init(of tensor: TensorInfo, _ mask: MaskMetric) throws {
    (statistics, spectrum) = (nil, nil)
    self.tensor = tensor
    self.mask = mask
    prepared = try PreparedMetric(mask.sides)
  }

  /// What errors are measured in.
  private var measured: PreparedMetric { mask?.elements.map { .elements($0) } ?? prepared }

  /// Whether the best factorisation of two sites is known in the metric: not with weights of elements.
  var hasFactorization: Bool { if case .sides = prepared { true } else { false } }

  /// The singular values of the whitened matrix; nil for weights of elements. What the decomposition needs of it is kept.
  func singularValues<Scalar>(of view: MatrixView<Scalar>) throws -> [Double]? {
    guard let spectrum = try prepared.spectrum(of: view) else { return nil }
    statistics?.prepared?.keep(spectrum, of: tensor.name)
    return try spectrum.singularValues()
  }

  /// The nearest factorisation of two sites; nil for weights of elements.
  func lowRank<Scalar>(of view: MatrixView<Scalar>, rank: Int) throws -> MPO<Scalar>? {
    try prepared.lowRank(of: view, rank: rank, spectrum: spectrum)
  }

  /// What integers are rounded in.
  var rounding: PreparedMetric { get throws { try prepared.forRounding() } }

  /// What rounding to integers costs, see `PreparedMetric.groupErrors`.
  func groupErrors<Scalar>(of view: MatrixView<Scalar>) -> [Double] {
    prepared.groupErrors(of: view, groups: LayerProfile.Storage.groups, squaredNorm: squaredNorm(of: view))
  }

  /// A factorisation refined in what errors are measured in, where that is more than what its optimum is known in.
  func refined<Scalar>(
    _ factorization: MPO<Scalar>, toward view: MatrixView<Scalar>, options: RefinementOptions
  ) -> MPO<Scalar> {
    guard let weights = mask?.elements else { return factorization }
    return factorization.refined(toward: view, metric: .elements(weights), options: options)
  }

  /// The metric with the ridges for chains of several sites, in which the cores of an `[rows, columns]` are refined. It is
  /// decoded anew: a chain needs the second moments themselves, which are not kept.
  func forRefinement(rows: Int, columns: Int, inBases: Bool = false) throws -> Metric {
    if case .elements(let weights) = measured { return .elements(weights) }
    guard let statistics else { return mask?.sides ?? .frobenius }
    let ridges = statistics.ridges(of: tensor, for: inBases ? .sitesInBases : .sites)
    return (try statistics.metric(of: tensor, rows: rows, columns: columns) ?? .frobenius)
      .regularized(rowRidge: ridges.rows, columnRidge: ridges.columns)
  }

  /// The squared norm of the matrix, without ridges.
  func squaredNorm<Scalar>(of view: MatrixView<Scalar>) -> Double {
    spectrum?.squaredNorm ?? measured.squaredNorm(of: view)
  }

  /// The relative error of a matrix that stands for another, without ridges.
  /// - Parameter squaredNorm: that of the other one, as `squaredNorm(of:)` gives it.
  func relativeError<Scalar>(
    of restored: Matrix<Scalar>, to view: MatrixView<Scalar>, squaredNorm: Double
  ) -> Double {
    measured.relativeError(of: restored, to: view, squaredNorm: squaredNorm)
  }

  /// The relative error of an operator, without ridges.
  /// - Parameter squaredNorm: that of the matrix, when it is known.
  func relativeError<Scalar>(
    of mpo: MPO<Scalar>, to view: MatrixView<Scalar>, squaredNorm: Double? = nil
  ) -> Double {
    measured.relativeError(of: mpo, to: view, squaredNorm: squaredNorm ?? spectrum?.squaredNorm)
  }
}
