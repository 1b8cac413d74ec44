/// What a matrix would lose at every size, by each structure: relative error against stored numbers, as its profile
/// predicts it.
public struct ErrorCurves: Sendable, Hashable {
  /// The error of a matrix at a size.
  public struct Point: Sendable, Hashable {
    /// Numbers that the matrix is stored with.
    public let parameters: Int
    /// In the metric, where the matrix has one; else in the Frobenius norm.
    public let relativeError: Double
  }

  /// Of chains, numbers falling; empty where the profile does not say what a chain loses.
  public let chain: [Point]
  /// Of factorisations of low rank, likewise.
  public let lowRank: [Point]
  /// Dense first: the lower convex hull over the structures that a recipe allows, which a plan goes along.
  public let hull: [Point]
}

extension LayerProfile {
  /// The curves of the matrix; nil for a profile that contradicts itself or has no spectra.
  public func errorCurves(_ settings: CurveSettings = CurveSettings()) -> ErrorCurves? {
    guard isConsistent else { return nil }
    let layer = scaled
    let norm = FormErrors(of: layer, rounding: settings.rounding).norm
    func points(_ curve: StructureCurve?, _ places: [Int]? = nil) -> [ErrorCurves.Point] {
      guard let curve else { return [] }
      return (places ?? Array(curve.points.indices)).map { place in
        let point = curve.points[place]
        return ErrorCurves.Point(
          parameters: point.size, relativeError: norm > 0 ? max(0, point.squaredError).squareRoot() / norm : 0)
      }
    }
    // In a metric without bases the spectra of a chain do not say what it loses there.
    let hasChain = metricSingularValues == nil || basisSpectra != nil
    guard let curve = try? layer.curve(settings.structure, settings, weight: 1) else { return nil }
    return ErrorCurves(
      chain: hasChain ? points(try? layer.curve(.chain, settings, weight: 1)) : [],
      lowRank: points(try? layer.curve(.svd, settings, weight: 1)), hull: points(curve, curve.hull))
  }

  func curve(_ structure: MatrixStructure, _ settings: CurveSettings, weight: Double) throws -> StructureCurve {
    try StructureCurve(
      members: [0], of: [self], structure: structure, weights: [weight], minimumBond: settings.minimumBond,
      alignment: settings.alignment, gauges: settings.rounding.gauges(for: settings.gauge), rounding: settings.rounding,
      factorSites: settings.factorSites)
  }
}
