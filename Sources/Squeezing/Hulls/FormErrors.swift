import TensorNetworks

/// The squared errors that are predicted for the forms a matrix may have, in its metric where it has one.
///
/// Without a metric the error of a chain is the bound of its spectra, and so it is in bases. In a metric without bases chains
/// of more than two sites have no spectra: their cores are refined in it afterwards, and the error of the factorisation with as many numbers stands for
/// theirs, so that layers are compared by what the metric says of them.
struct FormErrors {
  private let layer: LayerProfile
  private let rounding: RoundingError
  /// `‖W‖` in the norm that errors are measured in.
  let norm: Double
  /// `chain[bond][kept]`: `Σ λ²` of the values that are not kept.
  private let chain: [[Double]]?
  /// `lowRank[rank]`
  private let lowRank: [Double]?

  init(of layer: LayerProfile, rounding: RoundingError) {
    self.layer = layer
    self.rounding = rounding
    let spectra = layer.basisSpectra ?? (layer.metricSingularValues == nil ? layer.spectra : nil)
    chain = spectra?.spectra.map(Self.squaredTails)
    lowRank = (layer.metricSingularValues ?? layer.singularValues).map(Self.squaredTails)
    norm = layer.metricSingularValues == nil ? layer.norm : lowRank?[0].squareRoot() ?? 0
  }

  private static func squaredTails(of values: [Double]) -> [Double] {
    var tails = Array(repeating: 0.0, count: values.count + 1)
    for index in values.indices.reversed() { tails[index] = tails[index + 1] + values[index] * values[index] }
    return tails
  }

  /// Of truncation and rounding together; infinite where the profile has not what it takes to tell.
  func squaredError(of form: OperatorForm) -> Double {
    let truncation = squaredTruncationError(of: form)
    if let integers = form.integers {
      guard let error = layer.storage?.squaredError(of: integers) else { return .infinity }
      let isWhole = form.gauge == .compact && form.bonds == form.shape.fullBonds
      return truncation + (isWhole ? error : error * IntegerError.ofFactors(form.gauge))
        * max(0, norm * norm - truncation)
    }
    let rounding = norm * rounding.relativeError(gauge: form.gauge, sites: form.shape.siteCount)
    return truncation + rounding * rounding
  }

  /// The square root of `squaredError` over the norm; 0 for a matrix of zeros.
  func relativeError(of form: OperatorForm) -> Double {
    norm > 0 ? squaredError(of: form).squareRoot() / norm : 0
  }

  private func squaredTruncationError(of form: OperatorForm) -> Double {
    if form.shape == layer.shape, let chain {
      return zip(chain, form.bonds).reduce(0) { $0 + $1.0[$1.1] }
    }
    guard let lowRank else { return .infinity }
    if form.shape.isFactored { return lowRank[form.bonds[0]] }
    let rank = layer.rank(parameters: form.storedCount, gauge: form.gauge)
    let below = min(Int(rank), lowRank.count - 1)
    let above = min(below + 1, lowRank.count - 1)
    let fraction = rank - Double(below)
    return (1 - fraction) * lowRank[below] + fraction * lowRank[above]
  }
}
