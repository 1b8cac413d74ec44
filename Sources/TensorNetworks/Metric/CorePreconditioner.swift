import LinearAlgebra

/// Brings the gradients of all cores to about one scale: that of each core is divided by the Gram matrices of what is left
/// and right of it, as alternating least squares would without a metric.
struct CorePreconditioner<Scalar: LinearAlgebraScalar> {
  /// Added to the Gram matrices, relative to the mean of their diagonals.
  private static var ridge: Double { 0.01 }

  private let coreShapes: [[Int]]
  /// Of each core: the inverses to multiply with from the left and from the right; nil where that is the identity.
  private let inverses: [(left: Matrix<Scalar>?, right: Matrix<Scalar>?)]

  /// O(d³) in the bonds d times the factors of the sites.
  ///
  /// - Parameters:
  ///   - left: Contractions `[∏, d]` of the cores left of each bond, up to the left one of the core `centre`.
  ///   - right: Contractions `[d, ∏]` of the cores right of each bond, the last bond first, down to the right one of `centre`.
  ///   - inner: The contraction `[d, ∏]` of everything from `centre` on.
  init(
    cores: [MPOCore<Scalar>], centre: Int, left: [Matrix<Scalar>], right: [Matrix<Scalar>], inner: Matrix<Scalar>
  ) {
    // Gram matrices of what is left of each bond 0 … n−1 and right of each bond 1 … n.
    var leftGrams = left.map { $0.transposed() * $0 }
    for core in cores[centre...].dropLast() {
      let half = (leftGrams[leftGrams.count - 1] * core.rightUnfolding).reshaped(
        rows: core.leftBond * core.rowFactor * core.columnFactor, columns: core.rightBond)
      leftGrams.append(core.leftUnfolding.transposed() * half)
    }
    var rightGrams = right.map { $0 * $0.transposed() }
    if centre > 0 { rightGrams.append(inner * inner.transposed()) }
    for core in cores[..<centre].dropFirst().reversed() {
      let half = (core.leftUnfolding * rightGrams[rightGrams.count - 1]).reshaped(
        rows: core.leftBond, columns: core.rowFactor * core.columnFactor * core.rightBond)
      rightGrams.append(half * core.rightUnfolding.transposed())
    }
    coreShapes = cores.map(\.shape)
    inverses = zip(leftGrams, rightGrams.reversed()).map {
      (CorePreconditioner.inverse($0), CorePreconditioner.inverse($1))
    }
  }

  /// nil for a bond of one, which is only a factor, and where there is no inverse.
  private static func inverse(_ gram: Matrix<Scalar>) -> Matrix<Scalar>? {
    guard gram.rows > 1 else { return nil }
    guard case .full(let regularized) = Metric.Side.full(gram.converted(to: Double.self)).regularized(ridge) else {
      return nil
    }
    return (try? CholeskyFactor(of: regularized))?.solvedFromRight(.identity(gram.rows)).converted(to: Scalar.self)
  }

  /// The gradients of all cores, one after the other, each multiplied by its inverses.
  func applied(to gradient: [Scalar]) -> [Scalar] {
    var result: [Scalar] = []
    result.reserveCapacity(gradient.count)
    for (shape, inverse) in zip(coreShapes, inverses) {
      let count = shape.reduce(1, *)
      let block = Array(gradient[result.count..<(result.count + count)])
      let (leftBond, rightBond) = (shape[0], shape[shape.count - 1])
      var matrix = Matrix(rows: leftBond, columns: count / leftBond, elements: block)
      if let left = inverse.left { matrix = left * matrix }
      matrix = matrix.reshaped(rows: count / rightBond, columns: rightBond)
      if let right = inverse.right { matrix = matrix * right }
      result += matrix.elements
    }
    return result
  }
}
