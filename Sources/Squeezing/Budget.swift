/// How small, or how exact, the converted network is to be.
public enum Budget: Sendable, Hashable {
  /// Parameters of the whole converted checkpoint over those of the source, at most.
  case ratio(Double)
  /// Numbers that the matrices of the network are stored with over those they had, at most.
  case matrixRatio(Double)
  /// Relative Frobenius error of every matrix, at most.
  case maximumError(Double)
  /// Every bond dimension, at most.
  case bond(Int)
  /// Bonds of numerical rank, whatever the size.
  case lossless

  /// The relative error, for each bond, that is below what single precision resolves.
  static let losslessTolerance = 2e-7
}

extension Budget: CustomStringConvertible {
  /// For messages: `ratio 0.5`, `bond 8`.
  public var description: String {
    switch self {
    case .ratio(let value): "ratio \(value)"
    case .matrixRatio(let value): "matrix ratio \(value)"
    case .maximumError(let value): "maximum error \(value)"
    case .bond(let value): "bond \(value)"
    case .lossless: "lossless"
    }
  }
}
