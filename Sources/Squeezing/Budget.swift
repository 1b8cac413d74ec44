/// How small, or how exact, the converted network is to be.
public enum Budget: Sendable, Hashable {
  /// Parameters of the whole converted checkpoint over those of the source, at most.
  case ratio(Double)
  /// Numbers that the matrices of the network are stored with over those they had, at most.
  case matrixRatio(Double)
  /// Bytes of the whole converted checkpoint, at most.
  case bytes(ByteLimit)
  /// Bytes that the matrices of the network are stored with, at most.
  case matrixBytes(ByteLimit)
  /// Relative Frobenius error of every matrix, at most.
  case maximumError(Double)
  /// Every bond dimension, at most.
  case bond(Int)
  /// Bonds of numerical rank, whatever the size.
  case lossless

  /// A limit of bytes.
  public enum ByteLimit: Sendable, Hashable {
    /// Over those of the source.
    case share(Double)
    /// So many bytes.
    case count(Int)
  }

  /// Whether it limits bytes, not numbers.
  public var isOfBytes: Bool {
    switch self {
    case .bytes, .matrixBytes: true
    default: false
    }
  }

  /// The relative error, for each bond, that is below what single precision resolves.
  static let losslessTolerance = 2e-7
}

extension Budget: CustomStringConvertible {
  /// For messages: `ratio 0.5`, `bond 8`.
  public var description: String {
    switch self {
    case .ratio(let value): "ratio \(value)"
    case .matrixRatio(let value): "matrix ratio \(value)"
    case .bytes(let limit): "bytes \(limit)"
    case .matrixBytes(let limit): "matrix bytes \(limit)"
    case .maximumError(let value): "maximum error \(value)"
    case .bond(let value): "bond \(value)"
    case .lossless: "lossless"
    }
  }
}

extension Budget.ByteLimit: CustomStringConvertible {
  /// `0.3`, or a number of bytes as `60000000B`.
  public var description: String {
    switch self {
    case .share(let share): "\(share)"
    case .count(let count): "\(count)B"
    }
  }

  /// The most bytes it allows.
  /// - Parameter whole: those of the source.
  func count(of whole: Int) -> Int {
    switch self {
    case .share(let share): NetworkProfile.largestCount(share, of: whole)
    case .count(let count): count
    }
  }
}
