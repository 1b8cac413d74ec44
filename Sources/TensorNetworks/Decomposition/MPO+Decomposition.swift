import LinearAlgebra

extension SingularSpectra {
  /// The spectra of a matrix at every bond of `shape`: those left of the centre from the left reduced density matrix,
  /// those right of it from the right one; exact to a thousandth of every tail, or to about 1e-8 of the largest value.
  ///
  /// Memory: a block of the matrix, and two Gram matrices of at most `√(I·J)` rows.
  /// O(I·J·(L + R)) for the sizes L and R of the two Gram matrices.
  /// - Throws: `LinearAlgebraError`.
  public init<Scalar>(of matrix: MatrixView<Scalar>, shape: MPOShape) throws {
    self = try Self.withReductions(of: matrix, shape: shape).spectra
  }

  /// The singular values of a matrix with at least two rows and columns, and what a decomposition in the shape `lowRank` can make
  /// use of. Those of ranks whose factors would have more elements than the matrix are exact in sum only.
  /// O(I·J·min(I, J)).
  /// - Throws: `LinearAlgebraError`.
  public static func ofFactorizations<Scalar>(
    of matrix: MatrixView<Scalar>
  ) throws -> (singularValues: [Double], reductions: DensityReductions?) {
    let (rows, columns) = (matrix.rows, matrix.columns)
    let found = try withReductions(
      of: matrix, shape: .lowRank(rows: rows, columns: columns), rank: rows * columns / (rows + columns))
    return (found.spectra.spectra[0], found.reductions)
  }

  /// The spectra as `init(of:shape:)` gives them, and what a decomposition can make use of; nil where the spectra took more
  /// precision than it will.
  /// - Throws: `LinearAlgebraError`.
  public static func withReductions<Scalar>(
    of matrix: MatrixView<Scalar>, shape: MPOShape
  ) throws -> (spectra: SingularSpectra, reductions: DensityReductions?) {
    try withReductions(of: matrix, shape: shape, rank: nil)
  }

  private static func withReductions<Scalar>(
    of matrix: MatrixView<Scalar>, shape: MPOShape, rank: Int?
  ) throws -> (spectra: SingularSpectra, reductions: DensityReductions?) {
    try matrix.withUnitScale { matrix, scale in
      let tensor = SiteOrderedTensor(matrix, shape: shape)
      return try GramPrecision.sufficient(for: Scalar.self) { precision in
        guard let densities = tensor.densities(precision: precision) else { return nil }
        let (left, right) = (
          try densities.left?.spectra(rank: rank), try densities.right?.reversed().spectra(rank: rank)
        )
        guard (left == nil) == (densities.left == nil), (right == nil) == (densities.right == nil) else { return nil }
        let spectra = (left?.spectra ?? []) + (right?.spectra ?? []).reversed()
        return (
          SingularSpectra(spectra.map { $0.map { $0 * Double(scale) } }),
          precision == .first(for: Scalar.self)
            ? DensityReductions(left: left?.reduction, right: right?.reduction) : nil
        )
      }
    }
  }
}

extension MPO {
  /// Decomposes a matrix from both ends toward the centre: orthonormal auxiliary tensors, the weight in the central
  /// tensor, truncated to `bonds` (lowered to what the shape allows).
  ///
  /// Each isometry spans the leading eigenvectors of a reduced density matrix of what the earlier truncations left. The
  /// side with which the other has less work comes first; the other one is computed on the tensor that is truncated.
  /// Where a bond discards nothing its isometry is the identity: at full bonds the central tensor is a permutation of the
  /// matrix, bit by bit.
  /// Memory: twice the tensor as it is after the first side.
  /// - Parameters:
  ///   - matrix: `[I, J]`.
  ///   - shape: how its rows and columns are split.
  ///   - bonds: what each bond keeps.
  ///   - reductions: of this matrix and shape, where they are known; the result is the same, bit for bit.
  /// - Precondition: the matrix fits the padded sides of `shape`; its elements are finite.
  /// - Throws: `LinearAlgebraError`.
  public init(
    decomposing matrix: MatrixView<Scalar>, shape: MPOShape, bonds: [Int], reductions: DensityReductions? = nil
  ) throws {
    try self.init(decomposing: matrix, shape: shape, bonds: bonds, reductions: reductions, withPivots: false)
  }

  /// - Parameter withPivots: the side that is truncated last is in the gauge `compact`.
  fileprivate init(
    decomposing matrix: MatrixView<Scalar>, shape: MPOShape, bonds: [Int], reductions: DensityReductions?,
    withPivots: Bool
  ) throws {
    precondition(matrix.rows <= shape.rows && matrix.columns <= shape.columns)
    let bonds = shape.limitedBonds(bonds)
    let centre = shape.centralIndex
    let reduction = try CentralReduction(
      matrix, shape: shape, bonds: bonds, reductions: reductions, withPivots: withPivots)
    let cores = shape.coreShapes(bonds: bonds).enumerated().map { site, coreShape in
      if site == centre { return MPOCore(shape: coreShape, elements: reduction.central.elements) }
      let isometry =
        site < centre
        ? reduction.leftChain?.cores[site]
        // [bond after · site, bond before] becomes [bond before, site, bond after].
        : reduction.rightChain?.cores[shape.siteCount - 1 - site].rightToLeft(site: coreShape[1] * coreShape[2])
      let core = isometry ?? .identity(site < centre ? coreShape[3] : coreShape[0])
      return MPOCore(shape: coreShape, elements: core.converted(to: Scalar.self).elements)
    }
    self.init(shape: shape, cores: cores)
  }
}

extension GaugedMPO {
  /// Decomposes a matrix as `MPO(decomposing:shape:bonds:reductions:)` does, into a gauge. For the gauge `compact` the tensor is projected
  /// on the pivots of the last side at once: for chains that is faster than `compacted()` afterwards, for two sites the same.
  /// - Throws: `LinearAlgebraError`.
  public init(
    decomposing matrix: MatrixView<Scalar>, shape: MPOShape, bonds: [Int], gauge: Gauge,
    reductions: DensityReductions? = nil
  ) throws {
    self = try MPO(
      decomposing: matrix, shape: shape, bonds: bonds, reductions: reductions, withPivots: gauge == .compact
    ).gauged(gauge)
  }
}

/// The way from a tensor in site order to the central tensor of its truncation.
private struct CentralReduction<Scalar: LinearAlgebraScalar> {
  /// nil for a side that is not truncated, whose cores are identities.
  private(set) var leftChain: IsometryChain?
  private(set) var rightChain: IsometryChain?
  /// Elements `[left bond, central site, right bond]`.
  private(set) var central: Matrix<Scalar>

  init(
    _ matrix: MatrixView<Scalar>, shape: MPOShape, bonds: [Int], reductions: DensityReductions?, withPivots: Bool
  ) throws {
    guard bonds != shape.fullBonds else {
      central = SiteOrderedTensor(matrix, shape: shape).whole()
      return
    }
    self = try matrix.withUnitScale { matrix, scale in
      var reduction = try Self(
        truncating: SiteOrderedTensor(matrix, shape: shape), shape: shape, bonds: bonds, reductions: reductions,
        withPivots: withPivots)
      if scale != 1 {
        reduction.central = reduction.central.scaled(rowsBy: Array(repeating: scale, count: reduction.central.rows))
      }
      return reduction
    }
  }

  private init(
    truncating tensor: SiteOrderedTensor<Scalar>, shape: MPOShape, bonds: [Int], reductions: DensityReductions?,
    withPivots: Bool
  ) throws {
    let (leftSites, rightSites) = (tensor.leftSites, tensor.rightSites)
    let isLeftCut = shape.isTruncated(leftOfCentre: true, to: bonds)
    let isRightCut = shape.isTruncated(leftOfCentre: false, to: bonds)
    let leftBonds = Array(bonds[..<shape.centralIndex])
    let rightBonds = Array(bonds[shape.centralIndex...].reversed())
    if shape.isTruncatedLeftFirst(to: bonds) {
      let known = try reductions?.left?.isometries(sites: leftSites, bonds: leftBonds)
      var chain =
        try known
        ?? GramPrecision.sufficient(for: Scalar.self) {
          try tensor.densities(right: false, precision: $0)?.left?.isometries(bonds: leftBonds)
        }
      if withPivots, !isRightCut { chain = try chain.compacted(leftSites) }
      leftChain = chain
      let rest = tensor.projected(left: chain.basis.converted(to: Scalar.self))
      guard isRightCut else {
        central = rest
        return
      }
      var nextChain = try GramPrecision.sufficient(for: Scalar.self) {
        try rest.rightDensity(sites: rightSites, precision: $0)?.reversed().isometries(bonds: rightBonds)
      }
      if withPivots { nextChain = try nextChain.compacted(rightSites.reversed(), isRight: true) }
      rightChain = nextChain
      let basis = Self.rightBasis(nextChain, rightSites)
      central = rest.reshaped(rows: rest.elements.count / basis.rows, columns: basis.rows) * basis
    } else {
      let known = try reductions?.right?.isometries(sites: rightSites.reversed(), bonds: rightBonds)
      var chain =
        try known
        ?? GramPrecision.sufficient(for: Scalar.self) {
          try tensor.densities(left: false, precision: $0)?.right?.reversed().isometries(bonds: rightBonds)
        }
      if withPivots, !isLeftCut { chain = try chain.compacted(rightSites.reversed(), isRight: true) }
      rightChain = chain
      let rest = tensor.projected(right: Self.rightBasis(chain, rightSites))
      guard isLeftCut else {
        central = rest
        return
      }
      var nextChain = try GramPrecision.sufficient(for: Scalar.self) {
        try rest.leftDensity(sites: leftSites, precision: $0)?.isometries(bonds: leftBonds)
      }
      if withPivots { nextChain = try nextChain.compacted(leftSites) }
      leftChain = nextChain
      let basis = nextChain.basis.transposed().converted(to: Scalar.self)
      central = basis * rest.reshaped(rows: basis.columns, columns: rest.elements.count / basis.columns)
    }
  }

  /// The basis right of the centre, rows in site order.
  private static func rightBasis(_ chain: IsometryChain, _ sites: [Int]) -> Matrix<Scalar> {
    chain.basis.rowsReordered(ReducedDensityMatrix.reversal(of: sites.reversed())).converted(to: Scalar.self)
  }
}

extension IsometryChain {
  /// The chain in the gauge `compact`, and in place of the basis what projects the tensor on the pivots.
  ///
  /// - Parameters:
  ///   - sites: from the outermost.
  ///   - isRight: pivots ascend in the order `[site, bond]` of the cores right of the centre.
  fileprivate func compacted(_ sites: [Int], isRight: Bool = false) throws -> IsometryChain {
    var fixed: [Matrix<Double>] = []
    var transfer: Matrix<Double>?
    for (var core, site) in zip(cores, sites) {
      if let transfer {
        core = (transfer * core.reshaped(rows: transfer.columns, columns: site * core.columns))
          .reshaped(rows: transfer.rows * site, columns: core.columns)
      }
      let bond = core.rows / site
      if isRight { core = core.rowsReordered(ReducedDensityMatrix.reversal(of: [bond, site])) }
      let unfolding = try FixedUnfolding(pivotsOf: core)
      fixed.append(
        isRight ? unfolding.core.rowsReordered(ReducedDensityMatrix.reversal(of: [site, bond])) : unfolding.core)
      transfer = unfolding.transfer
    }
    return IsometryChain(cores: fixed, basis: transfer.map { basis * $0.transposed() } ?? basis)
  }
}

extension MPOShape {
  /// Whether a truncation to `bonds` discards anything on a side of the centre: a bond there is below the product of the
  /// sites outside of it.
  fileprivate func isTruncated(leftOfCentre: Bool, to bonds: [Int]) -> Bool {
    let centre = centralIndex
    let sites = leftOfCentre ? Array(siteDimensions[..<centre]) : siteDimensions[(centre + 1)...].reversed()
    let bonds = leftOfCentre ? Array(bonds[..<centre]) : bonds[centre...].reversed()
    var size = 1
    return zip(sites, bonds).contains { site, bond in
      size *= site
      return bond < size
    }
  }

  /// Whether a truncation to `bonds` begins left of the centre: with the side after which the other one takes fewer
  /// operations, of a Gram matrix, which is symmetric, and of a projection. A side that is not truncated takes none, and is
  /// not the first.
  func isTruncatedLeftFirst(to bonds: [Int]) -> Bool {
    let centre = centralIndex
    func cost(_ sites: ArraySlice<Int>, _ bond: Int) -> (operations: Double, remaining: Double) {
      let size = Double(sites.reduce(1, *))
      return (size + 2 * Double(bond), Double(bond) / size)
    }
    guard isTruncated(leftOfCentre: true, to: bonds) else { return false }
    guard isTruncated(leftOfCentre: false, to: bonds) else { return true }
    let left = cost(siteDimensions[..<centre], bonds[centre - 1])
    let right = cost(siteDimensions[(centre + 1)...], bonds[centre])
    return left.operations + left.remaining * right.operations <= right.operations + right.remaining * left.operations
  }
}

extension Matrix {
  /// `M Mᵀ` for this unfolding `[∏ sites, rest]`; nil when the precision can't hold it.
  fileprivate func leftDensity(sites: [Int], precision: GramPrecision) -> ReducedDensityMatrix? {
    let size = sites.reduce(1, *)
    var gram = GramMatrix(size: size, precision: precision)
    elements.withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: $0.count / size) }
    return gram.isHeld ? ReducedDensityMatrix(gram.matrix(), sites: sites, precision: precision) : nil
  }

  /// `MᵀM` for the unfolding `[rest, ∏ sites]` of these elements; nil when the precision can't hold it.
  fileprivate func rightDensity(sites: [Int], precision: GramPrecision) -> ReducedDensityMatrix? {
    let size = sites.reduce(1, *)
    var gram = GramMatrix(size: size, precision: precision)
    elements.withUnsafeBufferPointer { gram.addRows($0.baseAddress!, rows: $0.count / size) }
    return gram.isHeld ? ReducedDensityMatrix(gram.matrix(), sites: sites, precision: precision) : nil
  }

  /// `[after · site, before]` as `[before, site · after]`.
  fileprivate func rightToLeft(site: Int) -> Matrix {
    let after = rows / site
    return Matrix(rows: columns, columns: rows) { target in
      for a in 0..<after {
        for s in 0..<site {
          for before in 0..<columns {
            target.initializeElement(
              at: (before * site + s) * after + a, to: elements[(a * site + s) * columns + before])
          }
        }
      }
    }
  }

  /// Row r of the result is row `order[r]`.
  fileprivate func rowsReordered(_ order: [Int]) -> Matrix {
    Matrix(rows: rows, columns: columns) { target in
      for (row, source) in order.enumerated() {
        for column in 0..<columns {
          target.initializeElement(at: row * columns + column, to: elements[source * columns + column])
        }
      }
    }
  }
}
