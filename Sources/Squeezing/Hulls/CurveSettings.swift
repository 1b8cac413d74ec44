import TensorNetworks

/// How a plan counts what it stores: what `ErrorCurves` and `NetworkCurve` need to know of a recipe.
public struct CurveSettings: Sendable {
  /// What the matrix may become.
  public var structure: MatrixStructure
  /// No bond is lowered below it, where the shape allows as much.
  public var minimumBond: Int
  /// What bonds are multiples of, where they are not full.
  public var alignment: BondAlignment
  /// The sites of factorisations of low rank; those beyond two are square cores between the frames.
  public var factorSites: Int
  /// What operators are stored as, and so which numbers count.
  public var gauge: Gauge
  /// What rounding the cores to their dtype costs.
  public var rounding: RoundingError

  /// The settings of a conversion by default, where nothing else is given.
  public init(
    structure: MatrixStructure = .auto, minimumBond: Int = 1, alignment: BondAlignment = .auto,
    factorSites: Int = 2, gauge: Gauge = .compact, rounding: RoundingError = .negligible
  ) {
    self.structure = structure
    self.minimumBond = minimumBond
    self.alignment = alignment
    self.factorSites = factorSites
    self.gauge = gauge
    self.rounding = rounding
  }
}
