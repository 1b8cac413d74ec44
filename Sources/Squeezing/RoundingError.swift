import TensorNetworks

/// The relative Frobenius error that rounding the cores of an operator to their dtype costs, which depends on the gauge:
/// the compact one carries the rounding errors of its central core through auxiliary cores that are no isometries.
///
/// The largest errors that were measured on the 39 matrices of all-MiniLM-L6-v2: made exactly of a bond (50 to 300 for two
/// sites, 50 to 250 for five) and stored with cores of a dtype in a gauge. In the gauge compact the median matrix has
/// 4.5e-3 to 5.7e-3 with two sites and 3.6e-3 to 6.0e-3 with five, in bfloat16; the embeddings are the largest. In canonical
/// gauges all matrices have about `0.6 · 2⁻ᵖ · √n` for n sites and p significant bits, and at bonds near the full ones less.
public struct RoundingError: Sendable, Hashable {
  /// For two sites and for five or more; in between on a line.
  private let compact: [Double]
  private let canonical: [Double]

  /// Single and double precision, whose rounding is no match for any truncation.
  public static let negligible = RoundingError(compact: [0, 0], canonical: [0, 0])
  /// Of cores in bfloat16, as measured.
  public static let bfloat16 = RoundingError(compact: [6.2e-3, 1.1e-2], canonical: [2.4e-3, 2.9e-3])
  /// Of cores in half precision, as measured.
  public static let float16 = RoundingError(compact: [7.6e-4, 1.4e-3], canonical: [3.0e-4, 3.7e-4])

  /// Relative to `‖W‖_F`, for an operator of n sites.
  public func relativeError(gauge: Gauge, sites: Int) -> Double {
    let ends = gauge == .compact ? compact : canonical
    let fraction = Double(min(max(sites, 2), 5) - 2) / 3
    return ends[0] + (ends[1] - ends[0]) * fraction
  }

  /// The gauges that a plan chooses among where one is asked for: of rounded cores the compact one may lose more than it saves.
  func gauges(for gauge: Gauge) -> [Gauge] {
    gauge == .compact && self != .negligible ? [.compact, .canonical] : [gauge]
  }
}
