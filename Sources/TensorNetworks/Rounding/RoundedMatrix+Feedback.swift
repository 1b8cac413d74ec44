import LinearAlgebra

extension RoundedMatrix {
  /// Rounds a matrix `W`, `[m, n]`, so that `‖L_rᵀ (Ŵ − W) L_c‖_F` is small for the roots `L` of a metric of its rows and columns.
  ///
  /// The numbers are rounded one after the other, from the last column and row to the first. Each makes up for the errors of
  /// those before it as far as the metric lets it: the nearest-plane algorithm of Babai for the lattice `L_rᵀ · L_c`. With a
  /// metric of the columns alone it is GPTQ (Frantar et al., arXiv 2210.17323) in another order; with that of both sides the
  /// adaptive rounding of Tseng et al., arXiv 2505.22988. A group gets its scale when its turn comes: the best of a few for
  /// the numbers as they are by then.
  ///
  /// O(m·n·(m + n)), in single precision.
  /// - Parameters:
  ///   - rows: the root of the metric's side of the rows.
  ///   - columns: that of the columns.
  /// - Precondition: the elements are finite.
  public init(
    rounding matrix: Matrix<Float>, to integers: IntegerGroups, rows: MetricRoot = .identity,
    columns: MetricRoot = .identity
  ) {
    var rounding = FeedbackRounding(matrix, integers, rows: rows, columns: columns)
    rounding.run()
    self.init(
      integers: integers, rows: matrix.rows, columns: matrix.columns, codes: rounding.codes, scales: rounding.scales)
  }
}

/// The state of `RoundedMatrix.init(rounding:)`: tiles of some rows and one or several groups of columns, from the last to the first.
/// What tiles say to each other are products of matrices; inside a tile the numbers go one by one.
private struct FeedbackRounding {
  private let integers: IntegerGroups
  private let matrix: Matrix<Float>
  private let rows: UnitTriangle
  private let columns: UnitTriangle
  private(set) var codes: [UInt8]
  private(set) var scales: [Float]
  /// `Ŵ − W`, transposed: `[n, m]`, so that the columns that are rounded already are contiguous.
  private var errors: [Float]

  private static let tileRows = 64

  init(_ matrix: Matrix<Float>, _ integers: IntegerGroups, rows: MetricRoot, columns: MetricRoot) {
    (self.matrix, self.integers) = (matrix, integers)
    self.rows = UnitTriangle(rows, size: matrix.rows, blocks: Self.tileRows)
    self.columns = UnitTriangle(columns, size: matrix.columns, blocks: max(64, integers.group))
    codes = Array(repeating: 0, count: matrix.rows * matrix.columns)
    scales = Array(repeating: 0, count: matrix.rows * integers.scaleCount(columns: matrix.columns))
    errors = Array(repeating: 0, count: matrix.rows * matrix.columns)
  }

  mutating func run() {
    let (m, n) = (matrix.rows, matrix.columns)
    for block in columns.ranges.reversed() {
      let width = block.count
      // What the rounded columns ask of these: `N_cᵀ E`, `[width, m]`.
      var asked = [Float](repeating: 0, count: width * m)
      if !columns.isIdentity, block.upperBound < n {
        let part = columns.below(block)
        errors.withUnsafeBufferPointer { errors in
          asked.withUnsafeMutableBufferPointer { asked in
            Float.multiply(
              part, errors.baseAddress! + block.upperBound * m, into: asked.baseAddress!, stride: m, rows: width,
              inner: n - block.upperBound, columns: m)
          }
        }
      }
      // `E N_c` of these columns, `[m, width]`.
      var residuals = [Float](repeating: 0, count: m * width)
      for tile in rows.ranges.reversed() {
        // What the rounded rows ask of these: `N_rᵀ E N_c`, `[tile, width]`.
        var askedByRows = [Float](repeating: 0, count: tile.count * width)
        if !rows.isIdentity, tile.upperBound < m {
          let part = rows.below(tile)
          residuals.withUnsafeBufferPointer { residuals in
            askedByRows.withUnsafeMutableBufferPointer { target in
              Float.multiply(
                part, residuals.baseAddress! + tile.upperBound * width, into: target.baseAddress!, stride: width,
                rows: tile.count, inner: m - tile.upperBound, columns: width)
            }
          }
        }
        round(tile, block, asked, askedByRows, &residuals)
      }
    }
  }

  /// Rounds the rows `tile` of the columns `block`.
  private mutating func round(
    _ tile: Range<Int>, _ block: Range<Int>, _ asked: [Float], _ askedByRows: [Float], _ residuals: inout [Float]
  ) {
    let (m, n, height, width) = (matrix.rows, matrix.columns, tile.count, block.count)
    let group = integers.group
    let groups = integers.scaleCount(columns: n)
    let (zero, top) = (integers.zero, Float(integers.largestCode))
    // By columns, `[width, height]`: what each number is to be, but for what this tile itself asks.
    var wanted = [Float](repeating: 0, count: width * height)
    for column in 0..<width {
      for row in 0..<height {
        let own = matrix.elements[(tile.lowerBound + row) * n + block.lowerBound + column]
        wanted[column * height + row] =
          own - asked[column * m + tile.lowerBound + row]
      }
    }
    var target = [Float](repeating: 0, count: height)
    var scale = target
    var inverse = target
    for column in (0..<width).reversed() {
      let place = block.lowerBound + column
      if column == width - 1 || (place + 1) % group == 0 {
        let first = max(0, place / group * group - block.lowerBound)
        for row in 0..<height {
          scale[row] = GroupScale.best(integers, count: column - first + 1) { offset in
            (
              wanted[(first + offset) * height + row] - askedByRows[row * width + first + offset],
              columns.weights[block.lowerBound + first + offset]
            )
          }
          inverse[row] = scale[row] == 0 ? 0 : 1 / scale[row]
          scales[(tile.lowerBound + row) * groups + place / group] = scale[row]
        }
      }
      for row in 0..<height { target[row] = wanted[column * height + row] - askedByRows[row * width + column] }
      for row in (0..<height).reversed() {
        let exact = target[row]
        let code = max(0, min(top, (exact * inverse[row] + zero).rounded(.toNearestOrEven)))
        let number = (code - zero) * scale[row]
        let index = tile.lowerBound + row
        codes[index * n + place] = UInt8(code)
        errors[place * m + index] = number - matrix.elements[index * n + place]
        let residual = number - wanted[column * height + row]
        residuals[index * width + column] = residual
        if !rows.isIdentity {
          rows.lower.withUnsafeBufferPointer { lower in
            target.withUnsafeMutableBufferPointer { target in
              Float.add(
                -residual, times: lower.baseAddress! + index * m + tile.lowerBound, to: target.baseAddress!, count: row)
            }
          }
        }
      }
      guard !columns.isIdentity else { continue }
      // The errors of this column, to the columns of the block that come before it.
      errors.withUnsafeBufferPointer { errors in
        wanted.withUnsafeMutableBufferPointer { wanted in
          let error = errors.baseAddress! + place * m + tile.lowerBound
          for earlier in 0..<column {
            let factor = columns.lower[place * n + block.lowerBound + earlier]
            Float.add(-factor, times: error, to: wanted.baseAddress! + earlier * height, count: height)
          }
        }
      }
    }
  }
}

/// `N = L · diag(L)⁻¹` of a root `L`, in single precision, and what its blocks of columns have below them.
private struct UnitTriangle {
  let isIdentity: Bool
  let size: Int
  /// `N`, `[size, size]`, with ones on the diagonal; empty for a diagonal root.
  let lower: [Float]
  /// `diag(L)²`: what the square of an error counts that nothing makes up for.
  let weights: [Float]
  /// Blocks of columns.
  let ranges: [Range<Int>]
  /// Of each block `[a, b)` the transposed rows `b…`, `[b − a, size − b]`.
  private let parts: [[Float]]
  private let block: Int

  init(_ root: MetricRoot, size: Int, blocks block: Int) {
    (self.size, self.block) = (size, block)
    ranges = stride(from: 0, to: size, by: block).map { $0..<min(size, $0 + block) }
    switch root.factor {
    case .identity:
      (isIdentity, lower, parts) = (true, [], [])
      weights = Array(repeating: 1, count: size)
    case .diagonal(let values):
      (isIdentity, lower, parts) = (true, [], [])
      weights = values.map { Float($0 * $0) }
    case .triangular(let factor):
      let exact = factor.lower.elements
      let inverses = (0..<size).map { 1 / exact[$0 * size + $0] }
      var unit = [Float](repeating: 0, count: size * size)
      for row in 0..<size {
        for column in 0...row { unit[row * size + column] = Float(exact[row * size + column] * inverses[column]) }
      }
      isIdentity = false
      weights = (0..<size).map { Float(exact[$0 * size + $0] * exact[$0 * size + $0]) }
      parts = ranges.map { range in
        var part = [Float](repeating: 0, count: range.count * (size - range.upperBound))
        var place = 0
        for column in range {
          for row in range.upperBound..<size {
            part[place] = unit[row * size + column]
            place += 1
          }
        }
        return part
      }
      lower = unit
    }
  }

  /// The rows below a block of columns, transposed.
  func below(_ range: Range<Int>) -> [Float] { parts[range.lowerBound / block] }
}

/// The scale of a group of numbers.
enum GroupScale {
  /// The least part of the largest magnitude's own scale that is looked at, by bits: with fewer levels cutting the largest numbers off
  /// pays more.
  private static func leastPart(_ bits: Int) -> Float { bits > 4 ? 0.8 : bits == 4 ? 0.6 : bits == 3 ? 0.45 : 0.3 }
  private static let candidates = 12

  /// The one of a few scales with the least weighted squared error of rounding to nearest; 0 for numbers that are all zero.
  @inline(__always)
  static func best(_ integers: IntegerGroups, count: Int, _ number: (Int) -> (value: Float, weight: Float)) -> Float {
    let (zero, top) = (integers.zero, Float(integers.largestCode))
    return withUnsafeTemporaryAllocation(of: (value: Float, weight: Float).self, capacity: count) { numbers in
      var largest: Float = 0
      for index in 0..<count {
        numbers[index] = number(index)
        if numbers[index].value.magnitude > largest.magnitude { largest = numbers[index].value }
      }
      // A grid with zero has one level more on one side: that of the largest number.
      let whole = integers.bits >= 4 ? -largest / zero : largest.magnitude / zero
      guard integers.bits < 8 else { return halfPrecision(whole) }
      var best: (error: Float, scale: Float) = (.infinity, 0)
      for candidate in 0..<candidates {
        let part = 1 - (1 - leastPart(integers.bits)) * Float(candidate) / Float(candidates - 1)
        let scale = halfPrecision(whole * part)
        let inverse = scale == 0 ? 0 : 1 / scale
        var error: Float = 0
        for index in 0..<count {
          let (value, weight) = numbers[index]
          let code = max(0, min(top, (value * inverse + zero).rounded(.toNearestOrEven)))
          let difference = (code - zero) * scale - value
          error += weight * difference * difference
        }
        if error < best.error { best = (error, scale) }
      }
      return best.scale
    }
  }

  /// The nearest number that half precision has.
  private static func halfPrecision(_ value: Float) -> Float { Float(Float16(value)) }
}
