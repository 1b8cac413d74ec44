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
  /// Each isometry spans the leading eigenvectors of a reduced density matrix of what the earlier truncations left, the
  /// right side computed on the tensor that is already truncated from the left.
  /// Memory: at most twice the padded matrix.
  /// - Precondition: the matrix fits the padded sides of `shape`; its elements are finite.
  /// - Throws: `LinearAlgebraError`.
  public init(decomposing matrix: MatrixView<Scalar>, shape: MPOShape, bonds: [Int]) throws {
    precondition(matrix.rows <= shape.rows && matrix.columns <= shape.columns)
    let sites = shape.siteDimensions
    let centre = shape.centralIndex
    let bonds = shape.limitedBonds(bonds)
    let coreShapes = shape.coreShapes(bonds: bonds)
    var tensor = SiteOrder(shape, rows: matrix.rows, columns: matrix.columns).tensor(of: matrix)
    var cores: [Core<Scalar>] = []

    let leftSites = Array(sites[..<centre])
    if !leftSites.isEmpty {
      let chain = try GramPrecision.sufficient(for: Scalar.self) {
        try tensor.leftDensity(sites: leftSites, precision: $0)?.isometries(bonds: Array(bonds[..<centre]))
      }
      cores = chain.cores.enumerated().map {
        Core(shape: coreShapes[$0.offset], elements: $0.element.converted(to: Scalar.self).elements)
      }
      tensor = chain.basis.transposed().converted(to: Scalar.self) * tensor
    }
    var rightCores: [Core<Scalar>] = []
    let rightSites = Array(sites[(centre + 1)...])
    if !rightSites.isEmpty {
      let chain = try GramPrecision.sufficient(for: Scalar.self) {
        try tensor.rightDensity(sites: rightSites, precision: $0)?.reversed()
          .isometries(bonds: bonds[centre...].reversed())
      }
      rightCores = chain.cores.enumerated().map { offset, core in
        // [bond after · site, bond before] becomes [bond before, site, bond after].
        let shape = coreShapes[shape.siteCount - 1 - offset]
        return Core(
          shape: shape, elements: core.rightToLeft(site: shape[1] * shape[2]).converted(to: Scalar.self).elements)
      }
      let basis = chain.basis.rowsReordered(ReducedDensityMatrix.reversal(of: rightSites.reversed()))
      tensor =
        tensor.reshaped(rows: tensor.elements.count / basis.rows, columns: basis.rows)
        * basis.converted(to: Scalar.self)
    }
    cores.append(Core(shape: coreShapes[centre], elements: tensor.elements))
    self.init(shape: shape, cores: cores + rightCores.reversed())
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
