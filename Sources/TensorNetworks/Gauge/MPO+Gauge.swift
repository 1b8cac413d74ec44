import LinearAlgebra

/// The gauge of an operator: which of the many equal chains of cores it is. Every step is a decomposition of one auxiliary
/// core, in double precision, from the ends of the chain towards its centre; the matrix is not needed.
///
/// Bonds stay, except that one which is above what the bond before it allows (`d' > d·i·j`) is lowered to that. Cores may be
/// anything finite, of any rank.
extension MPO {
  /// The same operator in a gauge.
  /// - Throws: `LinearAlgebraError`.
  public func gauged(_ gauge: Gauge) throws -> GaugedMPO<Scalar> {
    switch gauge {
    case .compact: try compacted()
    case .canonical: try GaugedMPO(gauge: .canonical, mpo: canonicalized())
    case .spectral: try withSingularValuesApart()
    }
  }

  /// The same operator without a redundant number: left of the centre each core, as a matrix `[d·i·j, d']`, has d' pivot rows
  /// that are the identity, right of the centre likewise with columns; no element of these cores exceeds 2 in magnitude.
  ///
  /// The elements of the central core are elements of the operator, to rounding: those at the pivots of both sides. At full
  /// bonds all of them are, and the operator is a permutation of its central core. Cores that are in this gauge stay as they
  /// are.
  ///
  /// - Throws: `LinearAlgebraError`.
  public func compacted() throws -> GaugedMPO<Scalar> {
    let (mpo, pivots) = try fixed { try FixedUnfolding(pivotsOf: $0) }
    return GaugedMPO(gauge: .compact, mpo: mpo, pivots: pivots)
  }

  /// The same operator with all cores but the central one isometries: those left of it satisfy `AᵀA = 1`, those right of
  /// it `BBᵀ = 1`; the central one carries the weight. Cores that are isometries to rounding stay as they are. With square
  /// cores between two frames, the frames are isometries and the square cores carry the weight, see `deepened`.
  ///
  /// - Throws: `LinearAlgebraError`.
  public func canonicalized() throws -> MPO {
    if shape.isDeep { return try deepened(sites: shape.siteCount) }
    let tolerance = 16 * Double(Scalar.ulpOfOne)
    return try fixed { try FixedUnfolding(isometryOf: $0, tolerance: tolerance) }.mpo
  }

  /// Canonical form, the central core decomposed into its singular values at the central bond and isometries, one of which
  /// goes into the neighbour.
  private func withSingularValuesApart() throws -> GaugedMPO<Scalar> {
    let canonical = try fixed { try FixedUnfolding(isometryOf: $0, tolerance: 16 * Double(Scalar.ulpOfOne)) }.mpo
    let centre = shape.centralIndex
    var cores = canonical.cores
    let central = cores[centre].converted(to: Double.self)
    let values: [Double]
    if centre > 0 {
      let decomposition = try SingularValueDecomposition(of: central.rightUnfolding)
      values = decomposition.values
      cores[centre] = MPOCore(
        shape: [values.count] + central.shape[1...], elements: decomposition.right.converted(to: Scalar.self).elements)
      cores[centre - 1] = cores[centre - 1].converted(to: Double.self).multipliedFromRight(by: decomposition.left)
        .converted(to: Scalar.self)
    } else {
      let decomposition = try SingularValueDecomposition(of: central.leftUnfolding)
      values = decomposition.values
      cores[centre] = MPOCore(
        shape: central.shape[..<3] + [values.count], elements: decomposition.left.converted(to: Scalar.self).elements)
      cores[centre + 1] = cores[centre + 1].converted(to: Double.self).multipliedFromLeft(by: decomposition.right)
        .converted(to: Scalar.self)
    }
    return GaugedMPO(gauge: .spectral, mpo: MPO(shape: shape, cores: cores), singularValues: values)
  }

  /// The same operator with every auxiliary core fixed by `fix`, which takes its unfolding with the bond towards the centre in
  /// the columns, and what is left over multiplied into the central core.
  private func fixed(
    by fix: (Matrix<Double>) throws -> FixedUnfolding
  ) throws -> (mpo: MPO, pivots: [[Int]?]) {
    let centre = shape.centralIndex
    var cores = cores
    var pivots = [[Int]?](repeating: nil, count: cores.count)
    var left: Matrix<Double>?
    for index in 0..<centre {
      var core = cores[index].converted(to: Double.self)
      if let left { core = core.multipliedFromLeft(by: left) }
      let unfolding = try fix(core.leftUnfolding)
      cores[index] = MPOCore(
        shape: core.shape[..<3] + [unfolding.core.columns], elements: unfolding.core.converted(to: Scalar.self).elements
      )
      (left, pivots[index]) = (unfolding.transfer, unfolding.pivots)
    }
    var right: Matrix<Double>?
    for index in ((centre + 1)..<cores.count).reversed() {
      var core = cores[index].converted(to: Double.self)
      if let right { core = core.multipliedFromRight(by: right) }
      let unfolding = try fix(core.rightUnfolding.transposed())
      cores[index] = MPOCore(
        shape: [unfolding.core.columns] + core.shape[1...],
        elements: unfolding.core.transposed().converted(to: Scalar.self).elements)
      (right, pivots[index]) = (unfolding.transfer?.transposed(), unfolding.pivots)
    }
    cores[centre] = cores[centre].multiplied(left: left, right: right)
    return (MPO(shape: shape, cores: cores), pivots)
  }
}

extension MPOCore {
  /// The central core with what the auxiliary ones left over; nil is the identity.
  ///
  /// Computed in the precision of the core where the matrices are parts of isometries, so that nothing overflows or vanishes;
  /// else in double precision.
  fileprivate func multiplied(left: Matrix<Double>?, right: Matrix<Double>?) -> MPOCore {
    func product<Other>(_ core: MPOCore<Other>) -> MPOCore<Other> {
      var core = core
      if let left { core = core.multipliedFromLeft(by: left.converted(to: Other.self)) }
      if let right { core = core.multipliedFromRight(by: right.converted(to: Other.self)) }
      return core
    }
    let largest = [left, right].compactMap { $0?.largestMagnitude }
    if largest.allSatisfy({ (1e-3...1.001).contains($0) }) { return product(self) }
    return product(converted(to: Double.self)).converted(to: Scalar.self)
  }
}
