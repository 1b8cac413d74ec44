import TensorNetworks

/// How a plan counts what it stores: what `ErrorCurves` and `NetworkCurve` need to know of a recipe.
public struct CurveSettings: Sendable {
  public var structure: MatrixStructure
  public var minimumBond: Int
  public var alignment: Int
  public var factorSites: Int
  public var gauge: Gauge
  public var rounding: RoundingError

  public init(
    structure: MatrixStructure = .auto, minimumBond: Int = 1, alignment: Int = 1, factorSites: Int = 2,
    gauge: Gauge = .compact,
    rounding: RoundingError = .negligible
  ) {
    self.structure = structure
    self.minimumBond = minimumBond
    self.alignment = alignment
    self.factorSites = factorSites
    self.gauge = gauge
    self.rounding = rounding
  }
}
