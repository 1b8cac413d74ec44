import Glibc
import LinearAlgebra

/// What stays in a processor's cache.
private let cachedElements = 1 << 18

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

  /// What an index group contributes to the row and the column, and to the place in the matrix.
  private struct Cell {
    var row: Int32
    var column: Int32
    var start = 0
  }

  init(_ shape: MPOShape, rows: Int, columns: Int) {
    self.rows = rows
    self.columns = columns
    isPadded = shape.rows != rows || shape.columns != columns
    let centre = shape.centralIndex
    runLength = Self.runLength(of: shape.columnFactors[shape.siteCount - 1])
    func cells(_ sites: Range<Int>, runLength: Int = 1) -> [Cell] {
      Self.cells(shape, sites: sites, runLength: runLength).map {
        Cell(row: $0.row, column: $0.column, start: Int($0.row) * columns + Int($0.column))
      }
    }
    left = cells(0..<centre)
    runs = cells(centre..<shape.siteCount, runLength: runLength)
    leftSize = left.count
    restSize = runs.count * runLength
    rightSize = shape.siteDimensions[(centre + 1)...].reduce(1, *)
  }

  /// The last column factor; of a long one a divisor, so that a few runs of each row can be a block.
  private static func runLength(of factor: Int) -> Int {
    let longest = 512
    guard factor > longest else { return factor }
    return (longest / 16...longest).last { factor.isMultiple(of: $0) } ?? factor
  }

  /// - Parameter runLength: what is left out of the last site's columns.
  private static func cells(_ shape: MPOShape, sites: Range<Int>, runLength: Int) -> [Cell] {
    var rowStride = shape.rows
    var columnStride = shape.columns
    for site in 0..<sites.lowerBound {
      rowStride /= shape.rowFactors[site]
      columnStride /= shape.columnFactors[site]
    }
    var result = [Cell(row: 0, column: 0)]
    for site in sites {
      let step = site == sites.upperBound - 1 ? runLength : 1
      rowStride /= shape.rowFactors[site]
      columnStride /= shape.columnFactors[site]
      var next: [Cell] = []
      next.reserveCapacity(result.count * shape.rowFactors[site] * shape.columnFactors[site] / step)
      for cell in result {
        for i in 0..<shape.rowFactors[site] {
          for j in stride(from: 0, to: shape.columnFactors[site], by: step) {
            next.append(
              Cell(row: cell.row + Int32(i * rowStride), column: cell.column + Int32(j * columnStride)))
          }
        }
      }
      result = next
    }
    return result
  }

  /// Writes a block of the unfolding, padding with zeros.
  func gather<Scalar: LinearAlgebraScalar>(
    _ block: Block, of source: MatrixView<Scalar>, into target: UnsafeMutablePointer<Scalar>
  ) {
    let (source, target) = (UnsafeRawPointer(source.elements.baseAddress!), UnsafeMutableRawPointer(target))
    copyRuns(block, elementSize: MemoryLayout<Scalar>.stride) { (source + $1, target + $0) }
    clearPadding(block, of: target, elementSize: MemoryLayout<Scalar>.stride)
  }

  /// The inverse: writes a block back to the places of a `[rows, columns]` matrix; what was padding is dropped.
  func scatter<Scalar: LinearAlgebraScalar>(
    _ block: Block, from source: UnsafePointer<Scalar>, into target: UnsafeMutablePointer<Scalar>
  ) {
    let (source, target) = (UnsafeRawPointer(source), UnsafeMutableRawPointer(target))
    copyRuns(block, elementSize: MemoryLayout<Scalar>.stride) { (source + $0, target + $1) }
  }

  /// Sets the elements of a block that are padding to zero.
  func clearPadding<Scalar: LinearAlgebraScalar>(_ block: Block, of target: UnsafeMutablePointer<Scalar>) {
    clearPadding(block, of: UnsafeMutableRawPointer(target), elementSize: MemoryLayout<Scalar>.stride)
  }

  private func clearPadding(_ block: Block, of target: UnsafeMutableRawPointer, elementSize: Int) {
    guard isPadded else { return }
    forEachRun(block) { place, _, count in
      guard count < runLength else { return }
      memset(target + (place + count) * elementSize, 0, (runLength - count) * elementSize)
    }
  }

  /// Copies each run, of as many of its elements as the matrix has, between the addresses that `ends` gives for the offsets of
  /// its place in the block and of its start in the matrix, in bytes. Runs of the usual lengths are copied as one vector.
  @inline(__always)
  private func copyRuns(
    _ block: Block, elementSize: Int,
    _ ends: (Int, Int) -> (source: UnsafeRawPointer, target: UnsafeMutableRawPointer)
  ) {
    @inline(__always)
    func copy<Run: BitwiseCopyable>(as type: Run.Type) {
      forEachRun(block) { place, start, count in
        let (source, target) = ends(place * elementSize, start * elementSize)
        if count == runLength {
          target.storeBytes(of: source.loadUnaligned(as: Run.self), as: Run.self)
        } else {
          memcpy(target, source, count * elementSize)
        }
      }
    }
    switch runLength * elementSize {
    case 8: copy(as: UInt64.self)
    case 12: copy(as: (UInt32, UInt32, UInt32).self)
    case 16: copy(as: SIMD4<UInt32>.self)
    case 24: copy(as: (UInt64, UInt64, UInt64).self)
    case 32: copy(as: SIMD8<UInt32>.self)
    case 64: copy(as: SIMD16<UInt32>.self)
    default:
      forEachRun(block) { place, start, count in
        let (source, target) = ends(place * elementSize, start * elementSize)
        memcpy(target, source, count * elementSize)
      }
    }
  }

  /// Calls `body` for each run with its place in the block, its start in the matrix, and how many of its elements the
  /// matrix has; the others are padding.
  @inline(__always)
  private func forEachRun(_ block: Block, _ body: (Int, Int, Int) -> Void) {
    var place = 0
    let runRange = block.columns.lowerBound / runLength..<block.columns.upperBound / runLength
    runs[runRange].withUnsafeBufferPointer { runs in
      for left in left[block.rows] {
        if isPadded {
          for run in runs {
            let row = Int(left.row + run.row)
            let count = row < rows ? max(0, min(runLength, columns - Int(left.column + run.column))) : 0
            body(place, left.start + run.start, count)
            place += runLength
          }
        } else {
          for run in runs {
            body(place, left.start + run.start, runLength)
            place += runLength
          }
        }
      }
    }
  }

  /// A part of the unfolding left of the centre.
  struct Block {
    let rows: Range<Int>
    let columns: Range<Int>

    var elementCount: Int { rows.count * columns.count }
  }

  /// All of the unfolding.
  var whole: Block { Block(rows: 0..<leftSize, columns: 0..<restSize) }

  /// Rows of the unfolding in blocks that stay in a processor's cache.
  var rowBlocks: [Block] {
    Self.ranges(of: leftSize, step: 1, elementsEach: restSize, elements: cachedElements)
      .map { Block(rows: $0, columns: 0..<restSize) }
  }

  /// Its columns in such blocks, of whole values of the central index, so that a block `[leftSize, columns.count]` is as
  /// well `[leftSize · values, rightSize]`. Where the central site is the last one, of whole runs.
  var columnBlocks: [Block] { columnBlocks(elements: cachedElements) }

  /// Column blocks for sums of outer products: of so many that adding a block's sum is little beside computing it.
  var columnBlocksForSums: [Block] { columnBlocks(elements: max(cachedElements, 1024 * max(leftSize, rightSize))) }

  private func columnBlocks(elements: Int) -> [Block] {
    Self.ranges(of: restSize, step: rightSize > 1 ? rightSize : runLength, elementsEach: leftSize, elements: elements)
      .map { Block(rows: 0..<leftSize, columns: $0) }
  }

  private static func ranges(of count: Int, step: Int, elementsEach: Int, elements: Int) -> [Range<Int>] {
    let length = max(1, elements / (step * elementsEach)) * step
    return stride(from: 0, to: count, by: length).map { $0..<min($0 + length, count) }
  }

  /// The whole padded tensor in site order.
  func tensor<Scalar: LinearAlgebraScalar>(of source: MatrixView<Scalar>) -> Matrix<Scalar> {
    Matrix(rows: leftSize, columns: restSize) { gather(whole, of: source, into: $0.baseAddress!) }
  }
}
