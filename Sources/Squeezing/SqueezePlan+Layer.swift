import TensorNetworks

extension SqueezePlan {
  /// What becomes of one matrix.
  public struct Layer: Sendable, Hashable, Codable {
    /// The name of the tensor.
    public let name: String
    /// The sides of the matrix and the shape of its operator; where it stays dense, that of its profile.
    public let split: MatrixSplit
    /// The operator that it is a range of, beside others; nil for one of its own.
    public let link: String?
    /// The central core that it shares with others; nil for one of its own.
    public let centre: String?
    /// Of its operator, also where it is a range of that; nil: the matrix stays dense.
    public let bonds: [Int]?
    /// What the operator is stored as; says nothing of a dense matrix.
    public let gauge: Gauge
    /// What the cores are rounded to; nil for plain values.
    public let integers: IntegerGroups?
    /// Numbers it is stored with; of an operator that it shares, its part by its size.
    public let parameters: Int
    /// Upper bound of the relative Frobenius error, of truncation and rounding. In a metric: the relative error in it that
    /// is reckoned with, which is that of a factorisation with as many numbers. nil where the profile has not what it
    /// takes to tell.
    public let relativeErrorBound: Double?
    /// The relative error of plain SVD with as many numbers; nil where the profile has no singular values.
    public let svdRelativeError: Double?
    /// Entanglement entropies at the bonds; nil where the profile has no spectra of this shape.
    public let entropies: [Double]?
    /// `‖W‖_F`.
    public let norm: Double

    /// Rows I of the matrix, without padding.
    public var rows: Int { split.rows }
    /// Columns J of the matrix, without padding.
    public var columns: Int { split.columns }
    /// The shape of its operator.
    public var shape: MPOShape { split.shape }

    enum CodingKeys: String, CodingKey {
      case name, split, link, centre, bonds, gauge, integers, parameters, entropies, norm
      case relativeErrorBound = "relative_error_bound"
      case svdRelativeError = "svd_relative_error"
    }

    /// - Parameters:
    ///   - profile: scaled, so that its values can be squared.
    ///   - norm: of the matrix.
    ///   - form: nil for a dense matrix.
    init(_ profile: LayerProfile, norm: Double, form: OperatorForm?, gauge: Gauge, rounding: RoundingError) {
      name = profile.name
      self.norm = norm
      split = MatrixSplit(rows: profile.rows, columns: profile.columns, shape: form?.shape ?? profile.shape)
      (link, centre) = (nil, nil)
      bonds = form?.bonds
      self.gauge = form?.gauge ?? gauge
      integers = form?.integers
      parameters = form?.storedCount ?? profile.denseParameterCount
      let error = form.map { FormErrors(of: profile, rounding: rounding).relativeError(of: $0) } ?? 0
      relativeErrorBound = error.isFinite ? error : nil
      svdRelativeError = profile.svdRelativeError(parameters: parameters, gauge: gauge)
      let bondCount = split.shape.siteCount - 1
      let spectra =
        split == profile.split
        ? profile.spectra
        : profile.singularValues.map { SingularSpectra(Array(repeating: $0, count: bondCount)) }
      entropies = spectra?.entanglementEntropies
    }

    /// A matrix that is a range of an operator.
    /// - Parameters:
    ///   - form: of the operator.
    ///   - parameters: its part of those of the operator.
    init(
      _ profile: LayerProfile, norm: Double, link: String, form: OperatorForm, parameters: Int, relativeError: Double
    ) {
      name = profile.name
      self.norm = norm
      split = .lowRank(rows: profile.rows, columns: profile.columns)
      self.link = link
      centre = nil
      (bonds, gauge, integers) = (form.bonds, form.gauge, nil)
      self.parameters = parameters
      relativeErrorBound = relativeError
      svdRelativeError = profile.svdRelativeError(parameters: parameters, gauge: form.gauge)
      entropies = nil
    }

    /// A matrix whose central core is that of others too.
    /// - Parameter parameters: its own, and its part of those of the central core.
    init(_ profile: LayerProfile, norm: Double, centre: String, form: OperatorForm, parameters: Int) {
      name = profile.name
      self.norm = norm
      split = profile.split
      link = nil
      self.centre = centre
      (bonds, gauge, integers) = (form.bonds, form.gauge, nil)
      self.parameters = parameters
      (relativeErrorBound, svdRelativeError, entropies) = (nil, nil, nil)
    }
  }
}
