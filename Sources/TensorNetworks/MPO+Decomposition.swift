import LinearAlgebra

extension SingularSpectra {
  /// The spectra of a matrix at every bond of `shape`: those left of the centre from the left reduced density matrix,
  /// those right of it from the right one; exact to a thousandth of every tail, or to about 1e-8 of the largest value.
  ///
  /// Memory: the padded matrix once, and two Gram matrices of at most `√(I·J)` rows.
  /// O(I·J·(L + R)) for the sizes L and R of the two Gram matrices.
  /// - Throws: `LinearAlgebraError`.
  public init<Scalar>(of matrix: MatrixView<Scalar>, shape: MPOShape) throws {
    let sites = shape.siteDimensions
    let centre = shape.centralIndex
    let tensor = SiteOrder(shape, rows: matrix.rows, columns: matrix.columns).tensor(of: matrix)
    let leftSites = Array(sites[..<centre])
    let rightSites = Array(sites[(centre + 1)...])
    let left = try GramPrecision.sufficient(for: Scalar.self) {
      leftSites.isEmpty ? [] : try tensor.leftDensity(sites: leftSites, precision: $0)?.spectra()
    }
    let right = try GramPrecision.sufficient(for: Scalar.self) {
      rightSites.isEmpty ? [] : try tensor.rightDensity(sites: rightSites, precision: $0)?.reversed().spectra()
    }
    self.init(left + right.reversed())
  }
}

extension MPO {
  /// Decomposes a matrix from both ends toward the centre: orthonormal auxiliary tensors, the weight in the central
  /// tensor, truncated to `bonds` (lowered to what the shape allows).
  ///
  /// Each isometry spans the leading eigenvectors of a reduced density matrix of what the earlier truncations left. The
  /// side with which the other has less work comes first; the other one is computed on the tensor that is truncated.
  /// Memory: at most twice the padded matrix.
  /// - Precondition: the matrix fits the padded sides of `shape`; its elements are finite.
  /// - Throws: `LinearAlgebraError`.
  public init(decomposing matrix: MatrixView<Scalar>, shape: MPOShape, bonds: [Int]) throws {
    precondition(matrix.rows <= shape.rows && matrix.columns <= shape.columns)
    let bonds = shape.limitedBonds(bonds)
    let centre = shape.centralIndex
    let tensor = SiteOrder(shape, rows: matrix.rows, columns: matrix.columns).tensor(of: matrix)
    var reduction = CentralReduction(tensor, shape: shape, bonds: bonds)
    try reduction.reduce()
    let chains = (reduction.leftChain.cores, reduction.rightChain.cores)
    let cores = zip(shape.coreShapes(bonds: bonds), shape.siteDimensions).enumerated().map { site, sizes in
      let (coreShape, dimension) = sizes
      if site < centre { return Core(shape: coreShape, elements: chains.0[site].converted(to: Scalar.self).elements) }
      if site == centre { return Core(shape: coreShape, elements: reduction.tensor.elements) }
      // [bond after · site, bond before] becomes [bond before, site, bond after].
      let core = chains.1[shape.siteCount - 1 - site].rightToLeft(site: dimension)
      return Core(shape: coreShape, elements: core.converted(to: Scalar.self).elements)
    }
    self.init(shape: shape, cores: cores)
  }
}

/// A tensor in site order on its way to the central tensor of its truncation.
private struct CentralReduction<Scalar: LinearAlgebraScalar> {
  /// Elements `[left, central site, right]`, each end as it is before or after its reduction.
  private(set) var tensor: Matrix<Scalar>
  private(set) var leftChain = IsometryChain()
  private(set) var rightChain = IsometryChain()
  private let leftSites: [Int]
  private let rightSites: [Int]
  private let leftBonds: [Int]
  private let rightBonds: [Int]

  init(_ tensor: Matrix<Scalar>, shape: MPOShape, bonds: [Int]) {
    let centre = shape.centralIndex
    self.tensor = tensor
    leftSites = Array(shape.siteDimensions[..<centre])
    rightSites = Array(shape.siteDimensions[(centre + 1)...])
    leftBonds = Array(bonds[..<centre])
    rightBonds = bonds[centre...].reversed()
  }

  mutating func reduce() throws {
    if isLeftFirst {
      try reduceLeft()
      try reduceRight()
    } else {
      try reduceRight()
      try reduceLeft()
    }
  }

  /// By the operations for an element of the tensor: of a Gram matrix, which is symmetric, and of a projection.
  private var isLeftFirst: Bool {
    func cost(_ sites: [Int], _ bonds: [Int]) -> (operations: Double, remaining: Double) {
      guard let bond = bonds.last else { return (0, 1) }
      let size = Double(sites.reduce(1, *))
      return (size + 2 * Double(bond), Double(bond) / size)
    }
    let left = cost(leftSites, leftBonds)
    let right = cost(rightSites, rightBonds)
    return left.operations + left.remaining * right.operations <= right.operations + right.remaining * left.operations
  }

  private mutating func reduceLeft() throws {
    guard !leftSites.isEmpty else { return }
    leftChain = try GramPrecision.sufficient(for: Scalar.self) {
      try tensor.leftDensity(sites: leftSites, precision: $0)?.isometries(bonds: leftBonds)
    }
    let basis = leftChain.basis.transposed().converted(to: Scalar.self)
    tensor = basis * tensor.reshaped(rows: basis.columns, columns: tensor.elements.count / basis.columns)
  }

  private mutating func reduceRight() throws {
    guard !rightSites.isEmpty else { return }
    rightChain = try GramPrecision.sufficient(for: Scalar.self) {
      try tensor.rightDensity(sites: rightSites, precision: $0)?.reversed().isometries(bonds: rightBonds)
    }
    let basis = rightChain.basis.rowsReordered(ReducedDensityMatrix.reversal(of: rightSites.reversed()))
    tensor =
      tensor.reshaped(rows: tensor.elements.count / basis.rows, columns: basis.rows)
      * basis.converted(to: Scalar.self)
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
