import LinearAlgebra

/// The unfolding of an auxiliary core, its bond towards the centre in the columns, as `F T`: `F` is what a gauge makes of the
/// core, and `T` goes into the next core towards the centre.
struct FixedUnfolding {
  /// `F = [m, k]`, `k ≤ m`.
  let core: Matrix<Double>
  /// `T = [k, d]`; nil when it is exactly the identity.
  let transfer: Matrix<Double>?
  /// The rows of `F` that are the identity, ascending, in the gauge `compact`.
  let pivots: [Int]?

  /// `F` with orthonormal columns, by a QR decomposition unless the unfolding is one to `tolerance`, the largest element of
  /// `AᵀA − 1`.
  /// - Throws: `LinearAlgebraError`.
  init(isometryOf unfolding: Matrix<Double>, tolerance: Double) throws {
    pivots = nil
    if unfolding.isIsometry(tolerance: tolerance) {
      (core, transfer) = (unfolding, nil)
    } else {
      let decomposition = try QRDecomposition(of: unfolding)
      (core, transfer) = (decomposition.q, decomposition.r)
    }
  }

  /// `F` with pivot rows, no element above 2; `T` the pivot rows of the unfolding, unchanged.
  /// - Throws: `LinearAlgebraError`.
  init(pivotsOf unfolding: Matrix<Double>) throws {
    let pivots: [Int]
    if unfolding.rows <= unfolding.columns {
      core = .identity(unfolding.rows)
      pivots = Array(0..<unfolding.rows)
    } else {
      let interpolation = try RowInterpolation(of: unfolding)
      (core, pivots) = (interpolation.coefficients, interpolation.pivots)
    }
    let transfer = unfolding.selecting(rows: pivots)
    self.transfer = transfer.isIdentity ? nil : transfer
    self.pivots = pivots
  }
}

extension Matrix<Double> {
  fileprivate func isIsometry(tolerance: Double) -> Bool {
    guard rows >= columns else { return false }
    var gram = GramMatrix(size: columns)
    elements.withUnsafeBufferPointer { gram.addRows($0.baseAddress!, rows: rows) }
    let product = gram.matrix()
    return (0..<columns).allSatisfy { row in
      (0..<columns).allSatisfy { abs(product[row, $0] - (row == $0 ? 1 : 0)) <= tolerance }
    }
  }
}
