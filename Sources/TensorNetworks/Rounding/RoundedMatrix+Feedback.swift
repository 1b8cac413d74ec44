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
  ///   - matrix: the matrix to round, `[m, n]`.
  ///   - integers: the bits and groups to round to.
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
/// What tiles ask of each other are products of matrices; inside a tile the numbers go one by one.
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
              part, errors.baseAddress! + block.upperBound * m, stride: m, into: asked.baseAddress!, stride: m,
              rows: width,
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
                part, residuals.baseAddress! + tile.upperBound * width, stride: width, into: target.baseAddress!,
                stride: width,
                rows: tile.count, inner: m - tile.upperBound, columns: width)
            }
          }
        }
        round(tile, block, asked, askedByRows, &residuals)
      }
    }
  }

  /// Rounds the rows `tile` of the columns `block`, group by group.
  private mutating func round(
    _ tile: Range<Int>, _ block: Range<Int>, _ asked: [Float], _ askedByRows: [Float], _ residuals: inout [Float]
  ) {
    let (m, n, height, width) = (matrix.rows, matrix.columns, tile.count, block.count)
    // By columns, `[width, height]`: what each number is to be, but for what the rows ask.
    var wanted = [Float](repeating: 0, count: width * height)
    for column in 0..<width {
      for row in 0..<height {
        wanted[column * height + row] =
          matrix.elements[(tile.lowerBound + row) * n + block.lowerBound + column]
          - asked[column * m + tile.lowerBound + row]
      }
    }
    var group = RoundedGroup(integers, height: height)
    let groups = integers.scaleCount(columns: n)
    for number in (block.lowerBound / integers.group..<(block.upperBound - 1) / integers.group + 1).reversed() {
      let range = (number * integers.group)..<min(n, (number + 1) * integers.group)
      let first = range.lowerBound - block.lowerBound
      group.run(
        wanted: wanted[(first * height)..<((first + range.count) * height)], of: matrix, first: range.lowerBound,
        tile: tile, rows: rows, columns: columns
      ) { column, row in askedByRows[row * width + first + column] }
      for row in 0..<height { scales[(tile.lowerBound + row) * groups + number] = group.scales[row] }
      for column in 0..<range.count {
        for row in 0..<height {
          let (place, index) = (range.lowerBound + column, tile.lowerBound + row)
          let code = group.codes[column * height + row]
          codes[index * n + place] = code
          errors[place * m + index] =
            (Float(code) - integers.zero) * group.scales[row] - matrix.elements[index * n + place]
          residuals[index * width + first + column] = group.residuals[column * height + row]
        }
        guard !columns.isIdentity else { continue }
        // The errors of this column, to the groups of the block that come before it.
        errors.withUnsafeBufferPointer { errors in
          wanted.withUnsafeMutableBufferPointer { wanted in
            let place = range.lowerBound + column
            let error = errors.baseAddress! + place * m + tile.lowerBound
            for earlier in 0..<first {
              let factor = columns.lower[place * n + block.lowerBound + earlier]
              Float.add(-factor, times: error, to: wanted.baseAddress! + earlier * height, count: height)
            }
          }
        }
      }
    }
  }
}

/// One group of columns of a tile: its scales and codes.
///
/// Where numbers that make up for others leave the range that the scale of their row was chosen for, the error of the row is larger than rounding alone
/// explains. Such rows are given a larger scale, and the group is rounded again; the best attempt counts.
private struct RoundedGroup {
  private let integers: IntegerGroups
  private let height: Int
  private(set) var scales: [Float]
  /// By columns, `[columns, height]`.
  private(set) var codes: [UInt8] = []
  /// What nothing has made up for, by columns.
  private(set) var residuals: [Float] = []

  private static let attempts = 6
  private static let growth: Float = 1.35
  /// How many times the error of rounding alone a row may have.
  private static let tolerance: Float = 2

  init(_ integers: IntegerGroups, height: Int) {
    (self.integers, self.height) = (integers, height)
    scales = Array(repeating: 0, count: height)
  }

  mutating func run(
    wanted start: ArraySlice<Float>, of matrix: Matrix<Float>, first: Int, tile: Range<Int>, rows: UnitTriangle,
    columns: UnitTriangle,
    askedByRows: (_ column: Int, _ row: Int) -> Float
  ) {
    let width = start.count / height
    var asked = [Float](repeating: 0, count: width * height)
    for column in 0..<width { for row in 0..<height { asked[column * height + row] = askedByRows(column, row) } }
    let base = Array(start)
    var exact = asked
    for column in 0..<width {
      for row in 0..<height {
        exact[column * height + row] = matrix.elements[(tile.lowerBound + row) * matrix.columns + first + column]
      }
    }
    var scale = (0..<height).map { row in
      GroupScale.best(integers, count: width) { column in
        (base[column * height + row] - asked[column * height + row], columns.weights[first + column])
      }
    }
    codes = []
    let stepError = (0..<width).reduce(Float(0)) { $0 + columns.weights[first + $1] } / 12
    var best = Float.infinity
    for _ in 0..<Self.attempts {
      let (codes, residuals) = attempted(base, exact, asked, scale, first, tile, rows, columns)
      var total: Float = 0
      var isLarge = [Bool](repeating: false, count: height)
      for row in 0..<height {
        var own: Float = 0
        for column in 0..<width {
          let residual = residuals[column * height + row]
          own += columns.weights[first + column] * residual * residual
        }
        isLarge[row] = own > Self.tolerance * stepError * scale[row] * scale[row]
        total += own * rows.weights[tile.lowerBound + row]
      }
      if self.codes.isEmpty || total < best {
        (best, self.codes, self.residuals, scales) = (total, codes, residuals, scale)
      }
      guard isLarge.contains(true) else { return }
      for row in 0..<height where isLarge[row] { scale[row] = GroupScale.halfPrecision(scale[row] * Self.growth) }
    }
  }

  /// Rounds all with these scales.
  private func attempted(
    _ base: [Float], _ exact: [Float], _ asked: [Float], _ scale: [Float], _ first: Int, _ tile: Range<Int>,
    _ rows: UnitTriangle,
    _ columns: UnitTriangle
  ) -> (codes: [UInt8], residuals: [Float]) {
    let width = base.count / height
    let (zero, top) = (integers.zero, Float(integers.largestCode))
    // Where a scale is out of the range of half precision, whoever stores it will say so.
    let scale = scale.map { $0.isFinite ? $0 : 0 }
    let inverse = scale.map { $0 == 0 ? 0 : 1 / $0 }
    var wanted = base
    var codes = [UInt8](repeating: 0, count: base.count)
    var residuals = [Float](repeating: 0, count: base.count)
    var target = [Float](repeating: 0, count: height)
    var error = target
    for column in (0..<width).reversed() {
      let start = column * height
      for row in 0..<height { target[row] = wanted[start + row] - asked[start + row] }
      for row in (0..<height).reversed() {
        let nearest = (target[row] * inverse[row] + zero).rounded(.toNearestOrEven)
        let code = nearest >= 0 ? min(nearest, top) : 0
        codes[start + row] = UInt8(code)
        let number = (code - zero) * scale[row]
        let residual = number - wanted[start + row]
        residuals[start + row] = residual
        error[row] = number
        guard !rows.isIdentity else { continue }
        rows.lower.withUnsafeBufferPointer { lower in
          target.withUnsafeMutableBufferPointer { target in
            Float.add(
              -residual, times: lower.baseAddress! + (tile.lowerBound + row) * rows.size + tile.lowerBound,
              to: target.baseAddress!, count: row)
          }
        }
      }
      guard !columns.isIdentity, column > 0 else { continue }
      // Errors of the numbers themselves, to the columns of the group that come before.
      for row in 0..<height { error[row] -= exact[start + row] }
      error.withUnsafeBufferPointer { error in
        wanted.withUnsafeMutableBufferPointer { wanted in
          for earlier in 0..<column {
            let factor = columns.lower[(first + column) * columns.size + first + earlier]
            Float.add(-factor, times: error.baseAddress!, to: wanted.baseAddress! + earlier * height, count: height)
          }
        }
      }
    }
    return (codes, residuals)
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
      let exact = factor.lower.matrix().elements
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
      var best: (error: Float, scale: Float) = (.infinity, halfPrecision(whole))
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
  static func halfPrecision(_ value: Float) -> Float { Float(Float16(value)) }
}
