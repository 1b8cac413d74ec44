import LinearAlgebra

/// The permutation between a matrix in row-major order and the padded tensor in site order
/// `(i_1 j_1), (i_2 j_2), …, (i_n j_n)`, row-major.
///
/// The tensor is seen as a matrix whose rows are the indices left of the central site and whose columns are the rest, so
/// that it can be built and taken apart a few rows at a time.
struct SiteOrder {
  let rows: Int
  let columns: Int
  /// `∏_{m<c} i_m j_m`: rows of the unfolding left of the central site.
  let leftSize: Int
  /// `∏_{m≥c} i_m j_m`.
  let restSize: Int
  private let isPadded: Bool
  private let left: [Cell]
  /// Where each run of `runLength` elements, consecutive in both orders, begins.
  private let runs: [Cell]
  private let runLength: Int
  /// `∏_{m>c} i_m j_m`.
  private let rightSize: Int

  /// What an index group contributes to the row and the column.
  private struct Cell {
    var row: Int32
    var column: Int32
  }

  init(_ shape: MPOShape, rows: Int, columns: Int) {
    self.rows = rows
    self.columns = columns
    isPadded = shape.rows != rows || shape.columns != columns
    let centre = shape.centralIndex
    runLength = shape.columnFactors[shape.siteCount - 1]
    left = Self.cells(shape, sites: 0..<centre, withoutLastColumnFactor: false)
    runs = Self.cells(shape, sites: centre..<shape.siteCount, withoutLastColumnFactor: true)
    leftSize = left.count
    restSize = runs.count * runLength
    rightSize = shape.siteDimensions[(centre + 1)...].reduce(1, *)
  }

  private static func cells(_ shape: MPOShape, sites: Range<Int>, withoutLastColumnFactor: Bool) -> [Cell] {
    var rowStride = shape.rows
    var columnStride = shape.columns
    for site in 0..<sites.lowerBound {
      rowStride /= shape.rowFactors[site]
      columnStride /= shape.columnFactors[site]
    }
    var result = [Cell(row: 0, column: 0)]
    for site in sites {
      let isLast = withoutLastColumnFactor && site == sites.upperBound - 1
      rowStride /= shape.rowFactors[site]
      columnStride /= shape.columnFactors[site]
      var next: [Cell] = []
      next.reserveCapacity(result.count * shape.rowFactors[site] * (isLast ? 1 : shape.columnFactors[site]))
      for cell in result {
        for i in 0..<shape.rowFactors[site] {
          for j in 0..<(isLast ? 1 : shape.columnFactors[site]) {
            next.append(
              Cell(row: cell.row + Int32(i * rowStride), column: cell.column + Int32(j * columnStride)))
          }
        }
      }
      result = next
    }
    return result
  }

  /// Writes rows `range` of the unfolding, or those `columns` of them that a column block has, `[range.count,
  /// columns.count]`, padding with zeros.
  func gather<Scalar: LinearAlgebraScalar>(
    _ range: Range<Int>, columns: Range<Int>? = nil, of source: MatrixView<Scalar>,
    into target: UnsafeMutablePointer<Scalar>
  ) {
    let runRange = columns.map { $0.lowerBound / runLength..<$0.upperBound / runLength } ?? runs.indices
    if Scalar.self == Float.self {
      let source = UnsafeRawPointer(source.elements.baseAddress!).assumingMemoryBound(to: Float.self)
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Float.self)
      forEachRun(range, runRange) { place, start, count in
        copyRun(source + start, to: target + place, count: count)
        for offset in count..<runLength { target[place + offset] = 0 }
      }
    } else {
      let source = UnsafeRawPointer(source.elements.baseAddress!).assumingMemoryBound(to: Double.self)
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Double.self)
      forEachRun(range, runRange) { place, start, count in
        copyRun(source + start, to: target + place, count: count)
        for offset in count..<runLength { target[place + offset] = 0 }
      }
    }
  }

  /// The inverse: writes `[range.count, restSize]` back to the places of a `[rows, columns]` matrix; what was padding is
  /// dropped.
  func scatter<Scalar: LinearAlgebraScalar>(
    _ range: Range<Int>, from source: UnsafePointer<Scalar>, into target: UnsafeMutablePointer<Scalar>
  ) {
    if Scalar.self == Float.self {
      let source = UnsafeRawPointer(source).assumingMemoryBound(to: Float.self)
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Float.self)
      forEachRun(range, runs.indices) { place, start, count in copyRun(source + place, to: target + start, count: count)
      }
    } else {
      let source = UnsafeRawPointer(source).assumingMemoryBound(to: Double.self)
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Double.self)
      forEachRun(range, runs.indices) { place, start, count in copyRun(source + place, to: target + start, count: count)
      }
    }
  }

  /// Sets the elements of `[range.count, restSize]` that are padding to zero.
  func clearPadding<Scalar: LinearAlgebraScalar>(_ range: Range<Int>, of target: UnsafeMutablePointer<Scalar>) {
    guard isPadded else { return }
    forEachRun(range, runs.indices) { place, _, count in
      for offset in count..<runLength { target[place + offset] = 0 }
    }
  }

  /// Calls `body` for each run with its place in the block, its start in the matrix, and how many of its elements the
  /// matrix has; the others are padding.
  @inline(__always)
  private func forEachRun(_ range: Range<Int>, _ runRange: Range<Int>, _ body: (Int, Int, Int) -> Void) {
    var place = 0
    runs[runRange].withUnsafeBufferPointer { runs in
      for left in left[range] {
        for run in runs {
          let row = Int(left.row + run.row)
          let column = Int(left.column + run.column)
          let count = isPadded ? (row < rows ? max(0, min(runLength, columns - column)) : 0) : runLength
          body(place, row * columns + column, count)
          place += runLength
        }
      }
    }
  }

  /// Rows of the unfolding in blocks of up to about four million elements: enough rows that packing the other factor of a
  /// product that makes a block is little beside the product.
  var blocks: [Range<Int>] { Self.ranges(of: leftSize, step: 1, elementsEach: restSize) }

  /// Its columns in such blocks, of whole values of the central index, so that a block `[leftSize, columns.count]` is as
  /// well `[leftSize · values, rightSize]`. Where the central site is the last one, of whole runs.
  var columnBlocks: [Range<Int>] {
    Self.ranges(of: restSize, step: rightSize > 1 ? rightSize : runLength, elementsEach: leftSize)
  }

  /// The elements of the largest row block.
  var blockElements: Int { (blocks.first?.count ?? 0) * restSize }

  private static func ranges(of count: Int, step: Int, elementsEach: Int) -> [Range<Int>] {
    let length = max(1, (1 << 22) / (step * elementsEach)) * step
    return stride(from: 0, to: count, by: length).map { $0..<min($0 + length, count) }
  }

  /// The whole padded tensor in site order.
  func tensor<Scalar: LinearAlgebraScalar>(of source: MatrixView<Scalar>) -> Matrix<Scalar> {
    Matrix(rows: leftSize, columns: restSize) { target in
      gather(0..<leftSize, of: source, into: target.baseAddress!)
    }
  }
}

/// Copies a few elements; the usual numbers without a loop.
@inline(__always)
private func copyRun<Element>(_ source: UnsafePointer<Element>, to target: UnsafeMutablePointer<Element>, count: Int) {
  switch count {
  case 4: (target[0], target[1], target[2], target[3]) = (source[0], source[1], source[2], source[3])
  case 2: (target[0], target[1]) = (source[0], source[1])
  default: for offset in 0..<count { target[offset] = source[offset] }
  }
}
