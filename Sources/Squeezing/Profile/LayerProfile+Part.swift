extension LayerProfile {
  /// A part of a profile that costs work, and that not every plan needs.
  public enum Part: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    case spectra
    case singularValues = "singular_values"
    case metricSingularValues = "metric_singular_values"

    public var description: String {
      switch self {
      case .spectra: "singular spectra at the bonds"
      case .singularValues: "singular values"
      case .metricSingularValues: "singular values in the metric"
      }
    }
  }

  /// What a plan of this structure and budget needs of a matrix.
  ///
  /// In a metric the error of low rank is what is known; a chain needs its spectra beside it, for the order in which its
  /// bonds fall.
  /// - Parameter hasMetric: whether the matrix has a metric that its factorisation can be computed in.
  public static func parts(for structure: Structure, _ budget: Budget, hasMetric: Bool = false) -> Set<Part> {
    switch (budget, structure) {
    case (.bond, _): []
    case (.lossless, .chain): [.spectra]
    case (.lossless, .svd): [.singularValues]
    case (.lossless, .auto): [.spectra, .singularValues]
    case (_, .chain): hasMetric ? [.spectra, .metricSingularValues] : [.spectra]
    case (_, .svd): hasMetric ? [.metricSingularValues] : [.singularValues]
    case (_, .auto): hasMetric ? [.metricSingularValues] : [.spectra, .singularValues]
    }
  }

  /// - Throws: `SqueezeError.profileLacks` for the first part that is not there.
  func require(_ parts: Set<Part>) throws {
    for part in Part.allCases where parts.contains(part) {
      let isThere =
        switch part {
        case .spectra: spectra != nil
        case .singularValues: singularValues != nil
        case .metricSingularValues: metricSingularValues != nil
        }
      if !isThere { throw SqueezeError.profileLacks(part, layer: name) }
    }
  }
}
