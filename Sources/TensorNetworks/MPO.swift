import LinearAlgebra

/// A matrix product operator: `W[i_1…i_n, j_1…j_n] = T(1)[i_1,j_1] ⋯ T(n)[i_n,j_n]`.
public struct MPO<Scalar: LinearAlgebraScalar>: Sendable, Equatable {
  /// How rows and columns are split over the sites.
  public let shape: MPOShape
  /// T(1) … T(n).
  public let cores: [MPOCore<Scalar>]

  /// - Precondition: the cores have the shape's factors and chain, ends of bond 1.
  public init(shape: MPOShape, cores: [MPOCore<Scalar>]) {
    precondition(cores.map(\.rowFactor) == shape.rowFactors && cores.map(\.columnFactor) == shape.columnFactors)
    precondition(cores.first?.leftBond == 1 && cores.last?.rightBond == 1)
    precondition(zip(cores, cores.dropFirst()).allSatisfy { $0.rightBond == $1.leftBond })
    self.shape = shape
    self.cores = cores
  }

  /// `[d_1 … d_{n-1}]`.
  public var bonds: [Int] { cores.dropLast().map(\.rightBond) }

  /// The elements of all cores, `Σ d_{k-1} i_k j_k d_k`; `GaugedMPO.storedCount` has those that a gauge stores.
  public var parameterCount: Int { shape.parameterCount(bonds: bonds) }

  /// The operator with its cores in another precision.
  public func converted<Other: LinearAlgebraScalar>(to type: Other.Type) -> MPO<Other> {
    if let same = self as? MPO<Other> { return same }
    return MPO<Other>(shape: shape, cores: cores.map { $0.converted(to: type) })
  }

  /// The product of the cores: the first `rows` rows and `columns` columns of the padded matrix.
  public func matrix(rows: Int, columns: Int) -> Matrix<Scalar> {
    let order = SiteOrder(shape, rows: rows, columns: columns)
    return Matrix(rows: rows, columns: columns) { buffer in
      nonisolated(unsafe) let target = buffer.baseAddress!
      _ = mapBlocks(order) { order.scatter($0, from: $1, into: target) }
    }
  }

  /// `‖W − MPO‖_F²`, measured element by element in double precision.
  /// Memory: the larger of the cores and the cores contracted from the centre to the right.
  public func squaredDistance(to matrix: MatrixView<Scalar>) -> Double {
    let order = SiteOrder(shape, rows: matrix.rows, columns: matrix.columns)
    return mapBlocks(order) { block, elements in
      let count = block.elementCount
      let expected = UnsafeMutableBufferPointer<Scalar>.allocate(capacity: count)
      defer { expected.deallocate() }
      order.clearPadding(block, of: elements)
      order.gather(block, of: matrix, into: expected.baseAddress!)
      return Scalar.squaredDistance(
        UnsafeBufferPointer(expected), UnsafeBufferPointer(start: elements, count: count))
    }.reduce(0, +)
  }

  /// `‖W − MPO‖_F / ‖W‖_F`, also where the squares vanish or overflow; 0 when both are zero.
  public func relativeError(to matrix: MatrixView<Scalar>) -> Double {
    let squaredNorm = matrix.squaredNorm
    if MatrixView<Scalar>.holds(squaredNorm) { return (squaredDistance(to: matrix) / squaredNorm).squareRoot() }
    return matrix.withUnitScale { view, scale in
      var cores = cores
      let centre = shape.centralIndex
      cores[centre].elements = cores[centre].elements.map { $0 / scale }
      let squaredDistance = MPO(shape: shape, cores: cores).squaredDistance(to: view)
      return squaredDistance == 0 ? 0 : (squaredDistance / view.squaredNorm).squareRoot()
    }
  }

  /// What `body` gives for each block of the tensor in site order and its elements, from several threads.
  private func mapBlocks<Result: Sendable>(
    _ order: SiteOrder, _ body: @Sendable (SiteOrder.Block, UnsafeMutablePointer<Scalar>) -> Result
  ) -> [Result] {
    let (first, second) = halves()
    // Rows of the first half for one of the unfolding: where there are several, the second half is small and blocks are rows.
    let step = (first?.rows ?? order.leftSize) / order.leftSize
    let blocks = step == 1 ? order.columnBlocks : order.rowBlocks
    return mapInIdleThreads(blocks.count) { index in
      let block = blocks[index]
      let elements = UnsafeMutablePointer<Scalar>.allocate(capacity: block.elementCount)
      defer { elements.deallocate() }
      if let first, let second {
        first.multiply(
          rows: block.rows.lowerBound * step..<block.rows.upperBound * step, by: second,
          columns: step == 1 ? block.columns : 0..<second.columns, into: elements)
      } else if let only = first ?? second {
        only.elements.withUnsafeBufferPointer { source in
          for (index, row) in block.rows.enumerated() {
            (elements + index * block.columns.count).update(
              from: source.baseAddress! + row * order.restSize + block.columns.lowerBound, count: block.columns.count)
          }
        }
      }
      return body(block, elements)
    }
  }

  /// Two matrices whose product is the tensor in site order: the contracted cores left and right of the centre, the central
  /// one with the half with which all of it takes fewer operations. nil is an identity: no product touches the elements of a
  /// central core between identities.
  private func halves() -> (Matrix<Scalar>?, Matrix<Scalar>?) {
    let centre = shape.centralIndex
    let central = cores[centre]
    var left: Matrix<Scalar>?
    for core in cores[..<centre] {
      if let contracted = left {
        left = (contracted * core.rightUnfolding).reshaped(
          rows: contracted.rows * core.rowFactor * core.columnFactor, columns: core.rightBond)
      } else if !core.leftUnfolding.isIdentity {
        left = core.leftUnfolding
      }
    }
    var right: Matrix<Scalar>?
    for core in cores[(centre + 1)...].reversed() {
      if let contracted = right {
        right = (core.leftUnfolding * contracted).reshaped(
          rows: core.leftBond, columns: core.rowFactor * core.columnFactor * contracted.columns)
      } else if !core.rightUnfolding.isIdentity {
        right = core.rightUnfolding
      }
    }
    guard let left else { return (nil, right.map { central.leftUnfolding * $0 } ?? central.leftUnfolding) }
    guard let right else { return (left, central.rightUnfolding) }
    // Products with the central core, and of the halves.
    let withRight = central.leftBond * right.columns * (central.rightBond + left.rows)
    let withLeft = left.rows * central.rightBond * (central.leftBond + right.columns)
    let site = central.rowFactor * central.columnFactor
    return withRight <= withLeft
      ? (left, (central.leftUnfolding * right).reshaped(rows: central.leftBond, columns: site * right.columns))
      : ((left * central.rightUnfolding).reshaped(rows: left.rows * site, columns: central.rightBond), right)
  }
}
