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

  /// Writes rows `range` of the unfolding, `[range.count, restSize]`, padding with zeros.
  func gather<Scalar: LinearAlgebraScalar>(
    _ range: Range<Int>, of source: MatrixView<Scalar>, into target: UnsafeMutablePointer<Scalar>
  ) {
    if let source = source.elements as? UnsafeBufferPointer<Float> {
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Float.self)
      visit(range) {
        target[$0] = source[$1]
      } padding: {
        target[$0] = 0
      }
    } else if let source = source.elements as? UnsafeBufferPointer<Double> {
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Double.self)
      visit(range) {
        target[$0] = source[$1]
      } padding: {
        target[$0] = 0
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
      visit(range) {
        target[$1] = source[$0]
      } padding: { _ in
      }
    } else {
      let source = UnsafeRawPointer(source).assumingMemoryBound(to: Double.self)
      let target = UnsafeMutableRawPointer(target).assumingMemoryBound(to: Double.self)
      visit(range) {
        target[$1] = source[$0]
      } padding: { _ in
      }
    }
  }

  /// Sets the elements of `[range.count, restSize]` that are padding to zero.
  func clearPadding<Scalar: LinearAlgebraScalar>(_ range: Range<Int>, of target: UnsafeMutablePointer<Scalar>) {
    if isPadded {
      visit(range) { _, _ in
      } padding: {
        target[$0] = 0
      }
    }
  }

  /// Calls `element` with the place in the block and in the matrix for each element, `padding` with the place in the
  /// block where the matrix has none.
  @inline(__always)
  private func visit(_ range: Range<Int>, element: (Int, Int) -> Void, padding: (Int) -> Void) {
    var place = 0
    for row in range {
      let left = left[row]
      runs.withUnsafeBufferPointer { runs in
        for run in runs {
          let row = Int(left.row + run.row)
          let column = Int(left.column + run.column)
          let count = row < rows ? max(0, min(runLength, columns - column)) : 0
          let start = row * columns + column
          for offset in 0..<count { element(place + offset, start + offset) }
          for offset in count..<runLength { padding(place + offset) }
          place += runLength
        }
      }
    }
  }

  /// Rows of the unfolding in blocks of about a million elements.
  var blocks: some Sequence<Range<Int>> {
    let rowsPerBlock = max(1, (1 << 20) / restSize)
    return stride(from: 0, to: leftSize, by: rowsPerBlock).map { $0..<min($0 + rowsPerBlock, leftSize) }
  }

  /// The whole padded tensor in site order.
  func tensor<Scalar: LinearAlgebraScalar>(of source: MatrixView<Scalar>) -> Matrix<Scalar> {
    Matrix(rows: leftSize, columns: restSize) { target in
      gather(0..<leftSize, of: source, into: target.baseAddress!)
    }
  }
}
