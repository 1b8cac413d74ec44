import TensorNetworks

/// What squeezing needs to know of one weight matrix: its sizes and spectra, not its elements.
///
/// Only what the structure and the budget need has to be there; `measurements(for:_:hasMetric:)` says what that is.
public struct LayerProfile: Sendable, Hashable, Codable {
  /// The name of the tensor.
  public let name: String
  /// The matrix's sides, and how it would be split over sites.
  public let split: MatrixSplit
  /// `‖W‖_F`.
  public let norm: Double
  /// Singular spectra at every bond of the split's shape.
  public let spectra: SingularSpectra?
  /// The singular values of the matrix itself, largest first: what truncated SVD has to work with.
  public let singularValues: [Double]?
  /// The singular values of the whitened matrix `G^½ W S^½`, when the matrix has a metric.
  public let metricSingularValues: [Double]?

  /// The spectra at every bond of the split's shape of the matrix in its bases, where its metric is the Frobenius norm.
  public let basisSpectra: SingularSpectra?

  /// What a plan by bytes needs.
  public let storage: Storage?

  /// How the matrix is stored, and what rounding it to integers costs.
  public struct Storage: Sendable, Hashable, Codable {
    /// Of an element of the source.
    public let elementBytes: Int
    /// `Σ s² g_i c_j / ‖W‖²` for groups of 32, 64 and 128 neighbours with the largest magnitude s, `g` and `c` the squared diagonals of the
    /// roots of the metric: the squared relative error of integers whose step is s, over what the error of a step is.
    public let groupErrors: [Double]

    /// The lengths of the groups, in the order of their errors.
    public static let groups = [32, 64, 128]

    /// `groupErrors` are those of groups of 32, 64 and 128, in this order.
    public init(elementBytes: Int, groupErrors: [Double]) {
      (self.elementBytes, self.groupErrors) = (elementBytes, groupErrors)
    }

    enum CodingKeys: String, CodingKey {
      case elementBytes = "element_bytes"
      case groupErrors = "group_errors"
    }

    var isConsistent: Bool {
      (1...8).contains(elementBytes) && groupErrors.count == Self.groups.count
        && groupErrors.allSatisfy { $0.isFinite && $0 >= 0 }
    }
  }

  /// A profile with what was computed of the matrix; nil for what was not.
  public init(
    name: String, split: MatrixSplit, norm: Double, spectra: SingularSpectra? = nil, singularValues: [Double]? = nil,
    metricSingularValues: [Double]? = nil, basisSpectra: SingularSpectra? = nil, storage: Storage? = nil
  ) {
    self.name = name
    self.split = split
    self.norm = norm
    self.spectra = spectra
    self.singularValues = singularValues
    self.metricSingularValues = metricSingularValues
    self.basisSpectra = basisSpectra
    self.storage = storage
  }

  /// What is truncated where the matrix becomes a chain, and its norm.
  var chainSpectra: (spectra: SingularSpectra, norm: Double)? {
    basisSpectra.map { ($0, $0.norm) } ?? spectra.map { ($0, norm) }
  }

  /// Rows I of the matrix, without padding.
  public var rows: Int { split.rows }
  /// Columns J, without padding.
  public var columns: Int { split.columns }
  /// The shape of the operator that the matrix would become.
  public var shape: MPOShape { split.shape }
  /// `I · J`.
  public var denseParameterCount: Int { split.denseCount }

  /// The matrix divided by its norm, where squares of its singular values would vanish or overflow: relative errors stay as
  /// they are. A matrix in a metric stays as it is, as its absolute errors are compared with others'.
  var scaled: LayerProfile {
    guard norm > 0, !(1e-100...1e100).contains(norm), metricSingularValues == nil else { return self }
    return LayerProfile(
      name: name, split: split, norm: 1, spectra: spectra?.divided(by: norm),
      singularValues: singularValues?.map { $0 / norm }, storage: storage)
  }

  /// The relative Frobenius error of the best factorisation with at most so many stored numbers: what plain SVD reaches
  /// at that size. 1 when not even rank 1 fits; nil when the singular values are not known.
  public func svdRelativeError(parameters: Int, gauge: Gauge = .compact) -> Double? {
    let (norm, values) = (scaled.norm, scaled.singularValues ?? scaled.lowRankSpectrum)
    guard let values else { return nil }
    guard norm > 0 else { return 0 }
    let rank = Int(self.rank(parameters: parameters, gauge: gauge))
    let tail = values.dropFirst(rank).reversed().reduce(0) { $0 + $1 * $1 }
    return min(1, tail.squareRoot() / norm)
  }

  /// The upper bound of the relative Frobenius error at `bonds`; nil when the spectra are not known.
  public func relativeErrorBound(bonds: [Int]) -> Double? {
    let (norm, spectra) = (scaled.norm, scaled.spectra)
    return spectra.map { norm > 0 ? $0.squaredErrorBound(bonds: bonds).squareRoot() / norm : 0 }
  }

  enum CodingKeys: String, CodingKey {
    case name, split, norm, spectra, storage
    case singularValues = "singular_values"
    case metricSingularValues = "metric_singular_values"
    case basisSpectra = "basis_spectra"
  }

  /// The spectrum at the only bond where the split is a factorisation of low rank.
  private var lowRankSpectrum: [Double]? {
    split == .lowRank(rows: rows, columns: columns) ? spectra?.spectra[0] : nil
  }

  /// The rank, not rounded, of the factorisation with so many stored numbers; at most the full one.
  func rank(parameters: Int, gauge: Gauge) -> Double {
    let sides = Double(rows + columns)
    let count = max(0, Double(parameters))
    let rank =
      switch gauge {
      // r(I + J − r) numbers. Written so that whole ranks come out whole.
      case .compact: 2 * count / (sides + max(0, sides * sides - 4 * count).squareRoot())
      case .canonical: count / sides
      case .spectral: count / (sides + 1)
      }
    return min(rank, Double(min(rows, columns)))
  }

  /// Whether both can have the same bonds at the same cost.
  func hasSameSides(as other: LayerProfile) -> Bool { split == other.split }

  /// Whether the sizes of all parts that are there agree, for profiles that come from a file.
  var isConsistent: Bool {
    func isSpectrum(_ values: [Double]) -> Bool { values.allSatisfy { $0.isFinite && $0 >= 0 } }
    return split.fits && norm.isFinite && norm >= 0 && storage?.isConsistent != false
      && [spectra, basisSpectra].allSatisfy {
        $0.map { $0.spectra.map(\.count) == shape.fullBonds && $0.spectra.allSatisfy(isSpectrum) } ?? true
      }
      && [singularValues, metricSingularValues].allSatisfy {
        $0.map { $0.count == min(rows, columns) && isSpectrum($0) } ?? true
      }
  }
}
