import TensorNetworks

/// What squeezing needs to know of one weight matrix: its sizes and spectra, not its elements.
public struct LayerProfile: Sendable, Hashable, Codable {
  public let name: String
  /// Rows I of the matrix, without padding.
  public let rows: Int
  /// Columns J.
  public let columns: Int
  /// `‖W‖_F`.
  public let norm: Double
  /// How the matrix would be split over sites.
  public let shape: MPOShape
  /// Singular spectra at every bond of `shape`.
  public let spectra: SingularSpectra
  /// The singular values of the matrix itself, largest first: what truncated SVD has to work with.
  public let singularValues: [Double]
  /// The singular values of the whitened matrix `G^½ W S^½`, when the matrix has a metric.
  public let metricSingularValues: [Double]?

  public init(
    name: String, rows: Int, columns: Int, norm: Double, shape: MPOShape, spectra: SingularSpectra,
    singularValues: [Double], metricSingularValues: [Double]? = nil
  ) {
    self.metricSingularValues = metricSingularValues
    self.name = name
    self.rows = rows
    self.columns = columns
    self.norm = norm
    self.shape = shape
    self.spectra = spectra
    self.singularValues = singularValues
  }

  /// `I · J`.
  public var denseParameterCount: Int { rows * columns }

  /// The relative Frobenius error of the best factorisation `A·B` with `(I + J) · rank ≤ parameters`: what plain SVD
  /// reaches at that size. 1 when not even rank 1 fits.
  public func svdRelativeError(parameters: Int) -> Double {
    guard norm > 0 else { return 0 }
    let rank = parameters / (rows + columns)
    let tail = singularValues.dropFirst(rank).reversed().reduce(0) { $0 + $1 * $1 }
    return min(1, tail.squareRoot() / norm)
  }

  /// The upper bound of the relative Frobenius error at `bonds`.
  public func relativeErrorBound(bonds: [Int]) -> Double {
    norm > 0 ? spectra.squaredErrorBound(bonds: bonds).squareRoot() / norm : 0
  }

  enum CodingKeys: String, CodingKey {
    case name, rows, columns, norm, shape, spectra
    case singularValues = "singular_values"
    case metricSingularValues = "metric_singular_values"
  }

  /// Whether both can have the same bonds at the same cost.
  func hasSameSides(as other: LayerProfile) -> Bool {
    shape == other.shape && rows == other.rows && columns == other.columns
  }

  /// Whether the sizes of all parts agree, for profiles that come from a file.
  var isConsistent: Bool {
    rows > 0 && columns > 0 && rows <= shape.rows && columns <= shape.columns && norm.isFinite && norm >= 0
      && spectra.spectra.map(\.count) == shape.fullBonds
      && (spectra.spectra.joined() + singularValues + (metricSingularValues ?? [])).allSatisfy {
        $0.isFinite && $0 >= 0
      }
      && singularValues.count == min(rows, columns)
      && metricSingularValues.map { $0.count == min(rows, columns) } ?? true
  }
}
