import TensorNetworks

/// The relative Frobenius error that rounding the cores of an operator to their dtype costs, which depends on the gauge:
/// the compact one carries the rounding errors of its central core through auxiliary cores that are no isometries.
///
/// Measured on trained matrices. In canonical gauges it is about `0.6 · 2⁻ᵖ · √n` for n sites and p significant bits.
public struct RoundingError: Sendable, Hashable {
  /// For two sites and for five or more; in between on a line.
  private let compact: [Double]
  private let canonical: [Double]

  /// Single and double precision, whose rounding is no match for any truncation.
  public static let negligible = RoundingError(compact: [0, 0], canonical: [0, 0])
  public static let bfloat16 = RoundingError(compact: [6.7e-3, 4.6e-3], canonical: [2.3e-3, 3.5e-3])
  public static let float16 = RoundingError(compact: [8.4e-4, 5.6e-4], canonical: [2.9e-4, 4.5e-4])

  /// Relative to `‖W‖_F`, for an operator of n sites.
  public func relativeError(gauge: Gauge, sites: Int) -> Double {
    let ends = gauge == .compact ? compact : canonical
    let fraction = Double(min(max(sites, 2), 5) - 2) / 3
    return ends[0] + (ends[1] - ends[0]) * fraction
  }
}
