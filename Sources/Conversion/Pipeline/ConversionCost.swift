import LinearAlgebra
import Recipes
import Squeezing
import TensorNetworks

/// What a conversion takes, reckoned from the sizes of its matrices: good to a factor of two.
public struct ConversionCost: Sendable {
  /// Operations of floating-point numbers, those that are slower than products of matrices counted as so many more.
  public let operations: Double
  /// Bytes that are read in all passes, and written.
  public let bytesMoved: Int
  /// What each matrix needs while it is worked on, the most first.
  private let workingBytes: [Int]

  /// Without any matrix: the program and its libraries.
  private static let ownBytes = 80_000_000
  /// What reading, checksums and writing manage.
  private static let bytesPerSecond = 400e6

  /// - Parameters:
  ///   - bytes: of the checkpoint.
  ///   - inMetric: whether a matrix has a metric; nil where none has.
  init(
    of matrices: [WeightMatrix], bytes: Int, _ recipe: ConversionRecipe,
    inMetric: ((String) -> Bool)?
  ) {
    operations = matrices.reduce(0) { sum, matrix in
      sum + Self.operations(of: matrix, recipe, hasMetric: inMetric?(matrix.name) ?? false)
    }
    bytesMoved = 4 * bytes
    workingBytes = matrices.map { matrix in
      let (rows, columns) = (matrix.rows, matrix.columns)
      let width = matrix.tensor.dtype == .f64 ? 8 : 4
      let ofMetric =
        inMetric?(matrix.name) == true ? 12 * (rows * columns + rows * rows + columns * columns) : 0
      return 2 * width * rows * columns + ofMetric
    }.sorted(by: >)
  }

  private static func operations(
    of matrix: WeightMatrix, _ recipe: ConversionRecipe, hasMetric: Bool
  ) -> Double {
    let (rows, columns) = (Double(matrix.rows), Double(matrix.columns))
    /// A Gram matrix of the smaller side, and its eigenvalues or eigenvectors.
    func spectrum(_ rows: Double, _ columns: Double, vectors: Bool) -> Double {
      let (side, other) = (min(rows, columns), max(rows, columns))
      return 2 * side * side * other + (vectors ? 40 : 15) * side * side * side
    }
    let parts = LayerProfile.parts(
      for: recipe.structure, recipe.budget ?? .ratio(1), hasMetric: hasMetric,
      hasBases: hasMetric && recipe.usesBases)
    var bonds = 0.0
    var left = 1.0
    for size in matrix.shape.siteDimensions.dropLast() {
      left *= Double(size)
      bonds += spectrum(left, rows * columns / left, vectors: false)
    }
    let whitening =
      2
      * (2 * rows * columns * (rows + columns) + 4
        * (rows * rows * rows + columns * columns * columns) / 3)
    var sum = 0.0
    if parts.contains(.spectra) { sum += bonds }
    if parts.contains(.basisSpectra) { sum += bonds + whitening }
    if parts.contains(.singularValues) { sum += spectrum(rows, columns, vectors: false) }
    if parts.contains(.metricSingularValues) {
      sum += whitening + 2 * spectrum(rows, columns, vectors: false)
    }
    // The decomposition, and the product that its error is measured on.
    sum +=
      (hasMetric ? 2 : 1) * spectrum(rows, columns, vectors: true) + 4 * rows * columns
      * min(rows, columns)
    if hasMetric { sum += whitening }
    if hasMetric, recipe.structure == .chain {
      // Steps of refinement: a product of the chain, and the metric on both sides.
      sum += (recipe.usesBases ? 60 : 200) * 3 * (2 * rows * columns * (rows + columns))
    }
    return sum
  }

  /// - Parameter rate: operations in a second of one thread; `measuredRate` tells that of this machine.
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
