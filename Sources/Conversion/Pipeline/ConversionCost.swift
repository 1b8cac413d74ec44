import LinearAlgebra
import Recipes

/// What a conversion takes, reckoned from the sizes of its matrices: good to a factor of two.
public struct ConversionCost: Sendable {
  /// Operations of floating-point numbers, those that are slower than products of matrices counted as so many more.
  public let operations: Double
  /// Bytes that are read in all passes, and written.
  public let bytesMoved: Int
  /// What each matrix needs while it is worked on, the most first.
  private let workingBytes: [Int]

  /// Without any matrix: the program and its libraries.
  static let ownBytes = 80_000_000
  /// What reading, checksums and writing manage.
  static let bytesPerSecond = 400e6

  /// - Parameters:
  ///   - bytes: of the checkpoint.
  ///   - inMetric: whether a matrix has a metric; nil where none has.
  init(
    of matrices: [WeightMatrix], bytes: Int, _ recipe: ConversionRecipe,
    inMetric: ((String) -> Bool)?
  ) {
    let costs = matrices.map { MatrixCost(of: $0, recipe, hasMetric: inMetric?($0.name) ?? false) }
    operations = costs.reduce(0) { $0 + $1.profile + $1.decomposition }
    bytesMoved = 4 * bytes
    workingBytes = costs.map(\.memory).sorted(by: >)
  }

  /// - Parameters:
  ///   - jobs: matrices that are worked on at the same time.
  ///   - rate: operations in a second of one thread; `measuredRate` tells that of this machine.
  public func seconds(jobs: Int, rate: Double) -> Double {
    operations / (max(1, rate) * Double(max(1, jobs))) + Double(bytesMoved) / Self.bytesPerSecond
  }

  /// The memory at the peak, in bytes.
  public func memory(jobs: Int) -> Int {
    Self.ownBytes + workingBytes.prefix(max(1, jobs)).reduce(0, +)
  }

  /// Operations of single-precision products of matrices in a second of one thread, here and now; takes some hundredths of
  /// a second.
  public static func measuredRate() -> Double {
    let side = 384
    let matrix = Matrix<Float>(
      rows: side, columns: side, elements: (0..<side * side).map { Float($0 % 7) * 0.1 })
    BLASThreads.use(1)
    let clock = ContinuousClock()
    var best = Duration.seconds(1)
    var result = matrix
    // The first is not yet in the cache.
    for _ in 0..<4 {
      best = min(best, clock.measure { result = matrix * matrix })
    }
    _ = result
    let seconds = Double(best.components.attoseconds) * 1e-18 + Double(best.components.seconds)
    return 2 * Double(side * side * side) / max(1e-9, seconds)
  }
}
