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
    let size = (left: left && !leftSites.isEmpty ? leftSize : 0, right: right && !rightSites.isEmpty ? rightSize : 0)
    let blocks = order.columnBlocksForSums
    let parts = partCount(size.left * size.left + size.right * size.right, blocks.count)
    let sums = mapInIdleThreads(parts) { part in
      var leftGram = size.left > 0 ? GramMatrix(size: size.left, precision: precision) : nil
      var rightGram = size.right > 0 ? GramMatrix(size: size.right, precision: precision) : nil
      let room = UnsafeMutablePointer<Scalar>.allocate(capacity: blocks[0].elementCount)
      defer { room.deallocate() }
      for block in blocks[(part * blocks.count / parts)..<((part + 1) * blocks.count / parts)] {
        order.gather(block, of: matrix, into: room)
        leftGram?.addColumns(room, columns: block.columns.count)
        rightGram?.addRows(room, rows: block.elementCount / rightSize)
      }
      return (left: leftGram, right: rightGram)
    }
    var (leftGram, rightGram) = sums[0]
    for sum in sums.dropFirst() {
      sum.left.map { leftGram?.add($0) }
      sum.right.map { rightGram?.add($0) }
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
    return Matrix(rows: basis.columns, columns: order.restSize) { buffer in
      nonisolated(unsafe) let target = buffer.baseAddress!
      forEachBlock(order.columnBlocks) { block, elements in
        transposed.multiply(
          elements, columns: block.columns.count, into: target + block.columns.lowerBound,
          stride: order.restSize)
      }
    }
  }

  /// `T · basis` for the unfolding right of the centre: `[left · centre, basis.columns]`.
  func projected(right basis: Matrix<Scalar>) -> Matrix<Scalar> {
    Matrix(rows: leftSize * centralSize, columns: basis.columns) { buffer in
      nonisolated(unsafe) let target = buffer.baseAddress!
      forEachBlock(order.rowBlocks) { block, elements in
        basis.multiplied(
          fromLeftBy: elements, rows: block.rows.count * centralSize,
          into: target + block.rows.lowerBound * centralSize * basis.columns)
      }
    }
  }

  /// How many sums of so many elements are computed apart: together they take no more than half of the matrix. The number hangs on
  /// sizes alone, so that the sums of sums do.
  private func partCount(_ sumSize: Int, _ blockCount: Int) -> Int {
    let room = matrix.elements.count * MemoryLayout<Scalar>.stride / 2
    return max(1, min(8, blockCount, room / max(1, sumSize * MemoryLayout<Double>.stride)))
  }

  /// Calls `body` with each block and its elements, from several threads.
  private func forEachBlock(
    _ blocks: [SiteOrder.Block], _ body: @Sendable (SiteOrder.Block, UnsafePointer<Scalar>) -> Void
  ) {
    _ = mapInIdleThreads(blocks.count) { index in
      let block = blocks[index]
      let elements = UnsafeMutablePointer<Scalar>.allocate(capacity: block.elementCount)
      defer { elements.deallocate() }
      order.gather(block, of: matrix, into: elements)
      body(block, elements)
    }
  }
}
