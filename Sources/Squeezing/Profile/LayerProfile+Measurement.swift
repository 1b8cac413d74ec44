extension LayerProfile {
  /// A part of a profile that costs work, and that not every plan needs.
  public enum Measurement: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    /// `LayerProfile.spectra`.
    case spectra
    /// `LayerProfile.singularValues`.
    case singularValues = "singular_values"
    /// `LayerProfile.metricSingularValues`.
    case metricSingularValues = "metric_singular_values"
    /// `LayerProfile.basisSpectra`.
    case basisSpectra = "basis_spectra"
    /// `LayerProfile.storage`.
    case storage

    public var description: String {
      switch self {
      case .spectra: "singular spectra at the bonds"
      case .singularValues: "singular values"
      case .metricSingularValues: "singular values in the metric"
      case .basisSpectra: "singular spectra in its bases"
      case .storage: "bytes and errors of integers"
      }
    }
  }

  /// What a plan of this structure and budget needs of a matrix.
  ///
  /// In a metric the error of low rank is what is known; a chain needs its spectra beside it, for the order in which its
  /// bonds fall.
  /// - Parameters:
  ///   - structure: what the matrix may become.
  ///   - budget: nil while it is not known: what any ratio, of numbers or bytes, needs.
  ///   - hasMetric: whether the matrix has a metric that its factorisation can be computed in.
  ///   - hasBases: whether its chain is computed in bases, where its spectra tell the error in the metric.
  public static func measurements(
    for structure: MatrixStructure, _ budget: Budget?, hasMetric: Bool = false, hasBases: Bool = false
  ) -> Set<Measurement> {
    let needed = spectralMeasurements(for: structure, budget ?? .ratio(1), hasMetric: hasMetric, hasBases: hasBases)
    return budget?.isOfBytes ?? true ? needed.union([.storage]) : needed
  }

  private static func spectralMeasurements(
    for structure: MatrixStructure, _ budget: Budget, hasMetric: Bool, hasBases: Bool
  ) -> Set<Measurement> {
    switch (budget, structure) {
    case (.bond, _): []
    case (.lossless, .chain): [.spectra]
    case (.lossless, .svd): [.singularValues]
    case (.lossless, .auto): [.spectra, .singularValues]
    case (_, .chain) where hasBases: [.basisSpectra, .metricSingularValues]
    case (_, .chain): hasMetric ? [.spectra, .metricSingularValues] : [.spectra]
    case (_, .svd): hasMetric ? [.metricSingularValues] : [.singularValues]
    case (_, .auto): hasMetric ? [.metricSingularValues] : [.spectra, .singularValues]
    }
  }

  /// - Throws: `SqueezeError.profileLacks` for the first part that is not there.
  func require(_ measurements: Set<Measurement>) throws {
    for measurement in Measurement.allCases where measurements.contains(measurement) {
      let isThere =
        switch measurement {
        case .spectra: spectra != nil
        case .singularValues: singularValues != nil
        case .metricSingularValues: metricSingularValues != nil
        case .basisSpectra: basisSpectra != nil
        case .storage: storage != nil
        }
      if !isThere { throw SqueezeError.profileLacks(measurement, layer: name) }
    }
  }
}
