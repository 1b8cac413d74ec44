import LinearAlgebra

/// A matrix seen as its padded tensor in site order, which is made a block at a time and never as a whole.
struct SiteOrderedTensor<Scalar: LinearAlgebraScalar> {
  private let matrix: MatrixView<Scalar>
  private let order: SiteOrder
  private let centralSize: Int
  /// `i_k j_k` of the sites left of the central one.
  let leftSites: [Int]
  /// The same right of it.
  let rightSites: [Int]

  init(_ matrix: MatrixView<Scalar>, shape: MPOShape) {
    self.matrix = matrix
    order = SiteOrder(shape, rows: matrix.rows, columns: matrix.columns)
    let centre = shape.centralIndex
    centralSize = shape.siteDimensions[centre]
    leftSites = Array(shape.siteDimensions[..<centre])
    rightSites = Array(shape.siteDimensions[(centre + 1)...])
  }

  private var leftSize: Int { order.leftSize }
  private var rightSize: Int { order.restSize / centralSize }

  /// The reduced density matrices of all sites left and of all sites right of the centre, those that are asked for and
  /// have sites; nil when the precision can't hold them.
  func densities(
    left: Bool = true, right: Bool = true, precision: GramPrecision
  ) -> (left: ReducedDensityMatrix?, right: ReducedDensityMatrix?)? {
    var leftGram = left && !leftSites.isEmpty ? GramMatrix(size: leftSize, precision: precision) : nil
    var rightGram = right && !rightSites.isEmpty ? GramMatrix(size: rightSize, precision: precision) : nil
    forEachBlock(order.columnBlocks) { block, elements in
      leftGram?.addColumns(elements, columns: block.columns.count)
      rightGram?.addRows(elements, rows: block.elementCount / rightSize)
    }
    guard leftGram?.isHeld != false, rightGram?.isHeld != false else { return nil }
    return (
      leftGram.map { ReducedDensityMatrix($0.matrix(), sites: leftSites, precision: precision) },
      rightGram.map { ReducedDensityMatrix($0.matrix(), sites: rightSites, precision: precision) }
    )
  }

  /// All of it, `[left, centre · right]`.
  func whole() -> Matrix<Scalar> { order.tensor(of: matrix) }

  /// `basisᵀ · T` for the unfolding left of the centre: `[basis.columns, centre · right]`.
  func projected(left basis: Matrix<Scalar>) -> Matrix<Scalar> {
    let transposed = basis.transposed()
    return Matrix(rows: basis.columns, columns: order.restSize) { target in
      forEachBlock(order.columnBlocks) { block, elements in
        transposed.multiply(
          elements, columns: block.columns.count, into: target.baseAddress! + block.columns.lowerBound,
          stride: order.restSize)
      }
    }
  }

  /// `T · basis` for the unfolding right of the centre: `[left · centre, basis.columns]`.
  func projected(right basis: Matrix<Scalar>) -> Matrix<Scalar> {
    Matrix(rows: leftSize * centralSize, columns: basis.columns) { target in
      forEachBlock(order.rowBlocks) { block, elements in
        basis.multiplied(
          fromLeftBy: elements, rows: block.rows.count * centralSize,
          into: target.baseAddress! + block.rows.lowerBound * centralSize * basis.columns)
      }
    }
  }

  /// Calls `body` with each block and its elements.
  private func forEachBlock(
    _ blocks: [SiteOrder.Block], _ body: (SiteOrder.Block, UnsafePointer<Scalar>) -> Void
  ) {
    let elements = UnsafeMutablePointer<Scalar>.allocate(capacity: blocks.first?.elementCount ?? 0)
    defer { elements.deallocate() }
    for block in blocks {
      order.gather(block, of: matrix, into: elements)
      body(block, elements)
    }
  }
}
