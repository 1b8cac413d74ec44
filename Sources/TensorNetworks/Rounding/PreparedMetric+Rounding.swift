import LinearAlgebra

/// A factorisation of two sites whose cores are integers.
public struct RoundedFactorization<Scalar: LinearAlgebraScalar>: Sendable {
  /// With the numbers that the integers stand for.
  public let gauged: GaugedMPO<Scalar>
  /// What is stored of each core, without pivots; nil for one that is left as it was.
  public let cores: [RoundedMatrix?]
}

extension PreparedMetric {
  /// The ridge that makes numbers able to make up for each other's errors without leaving the range of their scales: with
  /// less, a matrix whose inputs have outliers was rounded up to 13 times worse, with more nothing is gained.
  fileprivate static let ridge = 0.02

  /// The metric for rounding to integers. O(I³ + J³).
  /// - Throws: `LinearAlgebraError.notPositiveDefinite`.
  public func forRounding() throws -> PreparedMetric {
    guard case .sides(let rows, let columns) = self else { return .sides(rows: .identity, columns: .identity) }
    return .sides(rows: try rows.withRidge(atLeast: Self.ridge), columns: try columns.withRidge(atLeast: Self.ridge))
  }

  /// The roots of the sides; the identity where elements are weighted.
  private var roots: (rows: MetricRoot, columns: MetricRoot) {
    if case .sides(let rows, let columns) = self { (rows, columns) } else { (.identity, .identity) }
  }

  /// Rounds the two cores of a factorisation to integers, so that the error in the metric, one `forRounding`, is small: first the central core, with
  /// feedback; then the other one, fitted anew to the rounded central one, with feedback too. In the gauge `compact` the pivots
  /// stay.
  ///
  /// O(I·J·(I + J)).
  /// - Parameters:
  ///   - factorization: of two sites, in the gauge `compact` or `canonical`, of the matrix `view`.
  ///   - view: the matrix, `[I, J]`.
  ///   - central: nil to leave the central core as it is.
  ///   - auxiliary: the same of the other one.
  /// - Throws: `LinearAlgebraError`.
  public func rounded<Scalar>(
    _ factorization: GaugedMPO<Scalar>, of view: MatrixView<Scalar>, central: IntegerGroups?, auxiliary: IntegerGroups?
  ) throws -> RoundedFactorization<Scalar> {
    let mpo = factorization.mpo
    precondition(mpo.shape.isFactored && mpo.shape.siteCount == 2 && factorization.gauge != .spectral)
    let centre = mpo.shape.centralIndex
    // As `A C`, `[n, r] · [r, m]` with the central core on the longer side m.
    let isTransposed = centre == 0
    let (short, long) = isTransposed ? (roots.columns, roots.rows) : roots
    var exact = (
      auxiliary: mpo.factor(1 - centre).converted(to: Double.self),
      central: mpo.factor(centre).converted(to: Double.self)
    )
    if isTransposed { exact = (exact.auxiliary.transposed(), exact.central.transposed()) }
    let bond = exact.auxiliary.columns
    let isWhole = bond == exact.auxiliary.rows && factorization.gauge == .compact

    func stored(
      _ matrix: Matrix<Double>, _ integers: IntegerGroups, rows: MetricRoot, columns: MetricRoot
    ) -> (stored: RoundedMatrix, exact: Matrix<Double>) {
      let own = matrix.converted(to: Float.self)
      let rounded =
        isTransposed
        ? RoundedMatrix(rounding: own.transposed(), to: integers, rows: columns, columns: rows)
        : RoundedMatrix(rounding: own, to: integers, rows: rows, columns: columns)
      let numbers = rounded.matrix(as: Double.self)
      return (rounded, isTransposed ? numbers.transposed() : numbers)
    }

    var rounded: [RoundedMatrix?] = [nil, nil]
    if let central {
      let root =
        isWhole ? short : try MetricRoot(gramOf: short.transposedTimes(exact.auxiliary))
      (rounded[centre], exact.central) = stored(exact.central, central, rows: root, columns: long)
    }
    if let auxiliary, !isWhole {
      var matrix: Matrix<Double> = view.copy()
      if isTransposed { matrix = matrix.transposed() }
      let fit = try FactorFit(of: matrix, central: exact.central, short: short, long: long)
      if let pivots = factorization.pivots[1 - centre] {
        let (rest, root) = try fit.rest(pivots: pivots)
        let numbers: Matrix<Double>
        (rounded[1 - centre], numbers) = stored(rest, auxiliary, rows: root, columns: fit.root)
        exact.auxiliary = exact.auxiliary.replacing(rowsExcept: pivots, by: numbers)
      } else {
        (rounded[1 - centre], exact.auxiliary) = stored(
          fit.factor(), auxiliary, rows: short, columns: fit.root)
      }
    }
    if isTransposed { exact = (exact.auxiliary.transposed(), exact.central.transposed()) }
    let factors = isTransposed ? [exact.central, exact.auxiliary] : [exact.auxiliary, exact.central]
    let cores = zip(mpo.cores, factors).map {
      MPOCore(shape: $0.shape, elements: $1.converted(to: Scalar.self).elements)
    }
    return RoundedFactorization(
      gauged: GaugedMPO(
        gauge: factorization.gauge, mpo: MPO(shape: mpo.shape, cores: cores), pivots: factorization.pivots),
      cores: rounded)
  }
}

/// The factor `A`, `[n, r]`, for which `A C` is nearest to `W`, `[n, m]`, in a metric, given `C`, `[r, m]`.
private struct FactorFit {
  /// `C S Cᵀ`, factored.
  private let gram: Matrix<Double>
  private let factored: CholeskyFactor
  /// `W S Cᵀ`, `[n, r]`.
  private let correlation: Matrix<Double>
  private let short: MetricRoot

  /// The root of `C S Cᵀ`: what an error of `A` counts by its columns.
  var root: MetricRoot { MetricRoot(factor: .triangular(factored), ridge: 0) }

  init(of matrix: Matrix<Double>, central: Matrix<Double>, short: MetricRoot, long: MetricRoot) throws {
    let whitened = long.timesFromRight(central)
    gram = whitened.gram().ridged()
    factored = try CholeskyFactor(of: gram)
    correlation = long.timesFromRight(matrix) * whitened.transposed()
    self.short = short
  }

  /// Free: `W S Cᵀ (C S Cᵀ)⁻¹`.
  func factor() -> Matrix<Double> { factored.solvedFromRight(correlation) }

  /// The rows that are no pivots, those being the identity, and the root of their side of the metric `G`: the pivots' errors
  /// `D_p = W_p − C` are made up for, `(W_q + G_qq⁻¹ G_qp D_p) S Cᵀ (C S Cᵀ)⁻¹`.
  func rest(pivots: [Int]) throws -> (factor: Matrix<Double>, root: MetricRoot) {
    let rest = (0..<correlation.rows).complement(of: pivots)
    let own = correlation.selecting(rows: rest)
    switch short.factor {
    case .identity: return (factored.solvedFromRight(own), .identity)
    case .diagonal(let values):
      return (factored.solvedFromRight(own), MetricRoot(factor: .diagonal(rest.map { values[$0] }), ridge: 0))
    case .triangular(let factor):
      let side = factor.lower.matrix().gram()
      // `G_·q`, of which `G_qq` and `G_pq` are rows.
      let columns = side.selecting(rows: rest).transposed()
      let restRoot = try CholeskyFactor(of: columns.selecting(rows: rest))
      let mixed = columns.selecting(rows: pivots)
      var errors = correlation.selecting(rows: pivots)
      errors.subtract(gram)
      let shares = restRoot.solvedFromRight(mixed).transposed()
      let asked = zip(own.elements, (shares * errors).elements).map { $0 + $1 }
      return (
        factored.solvedFromRight(Matrix(rows: own.rows, columns: own.columns, elements: asked)),
        MetricRoot(factor: .triangular(restRoot), ridge: 0)
      )
    }
  }
}

extension MetricRoot {
  /// The root of `MᵀM`.
  fileprivate init(gramOf matrix: Matrix<Double>) throws {
    self.init(
      factor: .triangular(try CholeskyFactor(of: matrix.transposed().gram().ridged())), ridge: 0)
  }
}

extension Matrix<Double> {
  /// `M Mᵀ`.
  fileprivate func gram() -> Matrix {
    var gram = GramMatrix(size: rows)
    elements.withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: columns) }
    return gram.matrix()
  }

  /// With a millionth of the mean on the diagonal: integers may lose a row.
  fileprivate func ridged() -> Matrix {
    var result = self
    let mean = (0..<rows).reduce(0) { $0 + self[$1, $1] } / Double(Swift.max(1, rows))
    for index in 0..<rows { result[index, index] += mean > 0 ? 1e-6 * mean : 1 }
    return result
  }

  fileprivate func replacing(rowsExcept pivots: [Int], by other: Matrix) -> Matrix {
    var result = self
    for (place, row) in (0..<rows).complement(of: pivots).enumerated() {
      for column in 0..<columns { result[row, column] = other[place, column] }
    }
    return result
  }
}

extension Range<Int> {
  /// Those that are not in `indices`, ascending.
  fileprivate func complement(of indices: [Int]) -> [Int] {
    let taken = Set(indices)
    return filter { !taken.contains($0) }
  }
}

extension MPO {
  /// A core of a factorisation as a matrix: `[I, r]` or `[r, J]`.
  fileprivate func factor(_ index: Int) -> Matrix<Scalar> {
    index == 0 ? cores[0].leftUnfolding : cores[1].rightUnfolding
  }
}

extension PreparedMetric {
  /// What rounding a matrix to integers costs, but for a factor that depends on their bits: for each length of groups
  /// `Σ s² g_i c_j / ‖W‖²`, with the largest magnitude s of the element's group and the squared diagonals `g` and `c` of the roots
  /// of the sides with the ridge for rounding, which is reckoned with but not factored. 0 for a matrix that is zero. O(I·J).
  /// - Parameters:
  ///   - view: the matrix, `[I, J]`.
  ///   - groups: the lengths of groups.
  ///   - squaredNorm: `‖W‖²` in the metric.
  public func groupErrors<Scalar>(of view: MatrixView<Scalar>, groups: [Int], squaredNorm: Double) -> [Double] {
    guard squaredNorm > 0 else { return groups.map { _ in 0 } }
    let (rows, columns) = (roots.rows.squaredDiagonal(view.rows), roots.columns.squaredDiagonal(view.columns))
    return groups.map { group in
      let starts = Array(stride(from: 0, to: view.columns, by: group))
      let weights = starts.map { columns[$0..<min(view.columns, $0 + group)].reduce(0, +) }
      var sum = 0.0
      for row in 0..<view.rows {
        var own = 0.0
        for (start, weight) in zip(starts, weights) {
          let count = min(group, view.columns - start)
          let largest = Double(
            Scalar.largestMagnitude(
              UnsafeBufferPointer(rebasing: view.elements[(row * view.columns + start)...].prefix(count))))
          own += largest * largest * weight
        }
        sum += own * rows[row]
      }
      return sum / squaredNorm
    }
  }
}

extension MetricRoot {
  fileprivate func squaredDiagonal(_ size: Int) -> [Double] {
    switch factor {
    case .identity: return Array(repeating: 1, count: size)
    case .diagonal(let values): return values.map { $0 * $0 }
    case .triangular(let factor):
      let missing = max(0, PreparedMetric.ridge * (meanDiagonal(of: factor) - ridge) - ridge)
      return (0..<size).map { factor.lower[$0, $0] * factor.lower[$0, $0] + missing }
    }
  }
}

extension GaugedMPO {
  /// A whole matrix as a factorisation at full bonds in the gauge `compact`: its own elements, and an identity that is not
  /// stored.
  public init(whole view: MatrixView<Scalar>) {
    let shape = MPOShape.lowRank(rows: view.rows, columns: view.columns)
    let centre = shape.centralIndex
    let shapes = shape.coreShapes(bonds: shape.fullBonds)
    let bond = shape.fullBonds[0]
    var cores = [MPOCore<Scalar>](repeating: MPOCore(shape: [1, 1, 1, 1], elements: [0]), count: 2)
    cores[centre] = MPOCore(shape: shapes[centre], elements: Array(view.elements))
    cores[1 - centre] = MPOCore(shape: shapes[1 - centre], elements: Matrix<Scalar>.identity(bond).elements)
    var pivots: [[Int]?] = [nil, nil]
    pivots[1 - centre] = Array(0..<bond)
    self.init(gauge: .compact, mpo: MPO(shape: shape, cores: cores), pivots: pivots)
  }
}
