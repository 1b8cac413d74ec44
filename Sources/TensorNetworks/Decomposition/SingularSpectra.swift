import Glibc

/// The singular spectra of a matrix at every bond of an MPO shape, and what follows from them without looking at the
/// matrix again.
public struct SingularSpectra: Sendable, Hashable, Codable {
  /// `spectra[k]`: singular values of the unfolding at bond k + 1, largest first. Values below about 1e-8 of the largest
  /// are rounding noise of the Gram matrices they come from.
  public let spectra: [[Double]]

  /// Spectra that are known already, one for each bond, each largest first.
  public init(_ spectra: [[Double]]) {
    self.spectra = spectra
  }

  /// `‖W‖_F`, from the values at the first bond; also where their squares vanish or overflow.
  public var norm: Double {
    let values = spectra[0]
    guard let largest = values.first, largest > 0, !(1e-100...1e100).contains(largest) else {
      return values.reduce(0) { $0 + $1 * $1 }.squareRoot()
    }
    return largest * values.reduce(0) { $0 + ($1 / largest) * ($1 / largest) }.squareRoot()
  }

  /// The values of the matrix divided by `norm`.
  public func divided(by norm: Double) -> SingularSpectra { SingularSpectra(spectra.map { $0.map { $0 / norm } }) }

  /// `Σ_{discarded} λ²` when the bond with index `bond` (from 0) keeps `kept` values: the squared local truncation error
  /// ε².
  public func squaredTruncationError(at bond: Int, kept: Int) -> Double {
    spectra[bond].dropFirst(kept).reversed().reduce(0) { $0 + $1 * $1 }
  }

  /// The upper bound `Σ_k ε_k²` of the squared Frobenius error of truncating to `bonds` (arXiv 2106.02205, appendix,
  /// theorem 1); an equality when one bond is truncated.
  public func squaredErrorBound(bonds: [Int]) -> Double {
    bonds.indices.reduce(0) { $0 + squaredTruncationError(at: $1, kept: bonds[$1]) }
  }

  /// `S_k = −Σ v ln v` with `v = λ²/Σλ²`, at each bond; 0 for a zero matrix.
  public var entanglementEntropies: [Double] {
    spectra.map { spectrum in
      let largest = spectrum.first ?? 0
      let isInRange = largest == 0 || (1e-100...1e100).contains(largest)
      let spectrum = isInRange ? spectrum : spectrum.map { $0 / largest }
      let total = spectrum.reduce(0) { $0 + $1 * $1 }
      guard total > 0 else { return 0 }
      let entropy = spectrum.reduce(0) { sum, value in
        let v = value * value / total
        return v > 0 ? sum - v * log(v) : sum
      }
      return max(0, entropy)
    }
  }

  /// The smallest bonds whose error bound stays within `error` (absolute, Frobenius), the allowance shared evenly by the
  /// bonds.
  public func bonds(forError error: Double) -> [Int] {
    let share = error * error / Double(spectra.count)
    return spectra.map { spectrum in
      var tail = 0.0
      var kept = spectrum.count
      while kept > 1 {
        tail += spectrum[kept - 1] * spectrum[kept - 1]
        if tail > share { break }
        kept -= 1
      }
      return kept
    }
  }
}
