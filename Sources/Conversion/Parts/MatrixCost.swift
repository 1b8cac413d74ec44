import Recipes
import Squeezing
import TensorNetworks

/// What one matrix takes in the stages of a conversion, reckoned from its sizes.
///
/// Operations are those of floating-point numbers; those that are slower than products of matrices count as so many more.
struct MatrixCost: Sendable {
  /// Operations of its profile.
  let profile: Double
  /// Operations of its decomposition, and of measuring the error of that.
  let decomposition: Double
  /// Bytes of memory while it is worked on.
  let memory: Int

  /// What a byte that is read, checked and written counts beside operations.
  static let operationsPerByte = 100.0

  /// - Parameters:
  ///   - shape: that it is profiled with.
  ///   - hasMetric: whether its errors are measured in a metric.
  init(
    rows: Int, columns: Int, shape: MPOShape, isDouble: Bool = false, _ recipe: ConversionRecipe, hasMetric: Bool
  ) {
    // Measured at the peak of a decomposition, at half of the numbers: copies of the matrix, a Gram matrix and its vectors.
    let width = isDouble ? 8 : 4
    let side = min(rows, columns)
    memory =
      (rows > columns ? 9 : 7) * width * rows * columns / 2 + 22 * side * side
      + (hasMetric
        ? 12 * (rows * columns + [rows, columns].reduce(0) { $0 + $1 * (Self.hasGram($1) ? $1 : 1) }) : 0)
    let grams = [rows, columns].filter(Self.hasGram).map(Double.init)
    let (rows, columns) = (Double(rows), Double(columns))
    let parts = LayerProfile.measurements(
      for: recipe.structure, recipe.budget ?? .ratio(1), hasMetric: hasMetric,
      hasBases: hasMetric && recipe.usesBases)
    var bonds = 0.0
    var left = 1.0
    for size in shape.siteDimensions.dropLast() {
      left *= Double(size)
      bonds += Self.spectrum(left, rows * columns / left, vectors: false)
    }
    let whitening = 2 * grams.reduce(0) { $0 + 2 * rows * columns * $1 + 4 * $1 * $1 * $1 / 3 }
    var profile = 0.0
    if parts.contains(.spectra) { profile += bonds }
    if parts.contains(.basisSpectra) { profile += bonds + whitening }
    if parts.contains(.singularValues) { profile += Self.spectrum(rows, columns, vectors: false) }
    if parts.contains(.metricSingularValues) {
      profile += whitening + 2 * Self.spectrum(rows, columns, vectors: false)
    }
    self.profile = profile
    // The decomposition, and the product that its error is measured on.
    var decomposition =
      (hasMetric ? 2 : 1) * Self.spectrum(rows, columns, vectors: true) + 4 * rows * columns * min(rows, columns)
    if hasMetric { decomposition += whitening }
    if hasMetric, recipe.structure == .chain {
      // Steps of refinement: a product of the chain, and the metric on both sides.
      decomposition += (recipe.usesBases ? 60 : 200) * 3 * (2 * rows * columns * (rows + columns))
    }
    self.decomposition = decomposition
  }

  init(of matrix: WeightMatrix, _ recipe: ConversionRecipe, hasMetric: Bool) {
    self.init(
      rows: matrix.rows, columns: matrix.columns, shape: matrix.shape, isDouble: matrix.tensor.dtype == .f64, recipe,
      hasMetric: hasMetric)
  }

  /// Whether statistics have the whole second moment of a side: of longer ones 'calibrate' keeps the diagonal, unless it is told
  /// otherwise.
  private static func hasGram(_ side: Int) -> Bool { side <= 8192 }

  /// A Gram matrix of the smaller side, and its eigenvalues or eigenvectors.
  private static func spectrum(_ rows: Double, _ columns: Double, vectors: Bool) -> Double {
    let (side, other) = (min(rows, columns), max(rows, columns))
    return 2 * side * side * other + (vectors ? 20 : 5) * side * side * side
  }
}
