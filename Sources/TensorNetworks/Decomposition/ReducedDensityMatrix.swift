import LinearAlgebra

/// The Gram matrix of an unfolding, seen as an operator on a chain of sites: all spectra and all cores on one side of
/// the centre follow from it.
///
/// Site 0 is the outermost; the index is row-major over `sites`.
struct ReducedDensityMatrix {
  /// `[∏ sites, ∏ sites]`, symmetric.
  let matrix: Matrix<Double>
  let sites: [Int]
  /// Of the products that the matrix is made of.
  let precision: GramPrecision

  init(_ matrix: Matrix<Double>, sites: [Int], precision: GramPrecision) {
    self.matrix = matrix
    self.sites = sites
    self.precision = precision
  }

  /// The same operator with the sites in the opposite order: the right end of the chain becomes the outermost.
  func reversed() -> ReducedDensityMatrix {
    let order = Self.reversal(of: sites)
    let size = matrix.rows
    let result = Matrix<Double>(rows: size, columns: size) { target in
      for row in 0..<size {
        let source = order[row] * size
        for column in 0..<size { target[row * size + column] = matrix.elements[source + order[column]] }
      }
    }
    return ReducedDensityMatrix(result, sites: sites.reversed(), precision: precision)
  }

  /// `order[r]`: the row-major index over `sites` of the element whose row-major index over the reversed sites is r.
  static func reversal(of sites: [Int]) -> [Int] {
    var order = [0]
    var stride = 1
    for site in sites.reversed() {
      var next: [Int] = []
      next.reserveCapacity(order.count * site)
      for base in order { for digit in 0..<site { next.append(base + digit * stride) } }
      order = next
      stride *= site
    }
    return order
  }

  /// The spectra `√eigenvalue` of the density matrices of the outermost 1, 2, … sites, and the tridiagonal form of the whole;
  /// nil when the precision does not suffice for the smallest of their values.
  /// - Parameter rank: where it is given, those of the whole that are not among the first `rank` need be known in sum only.
  func spectra(rank: Int? = nil) throws -> (spectra: [[Double]], reduction: TridiagonalReduction)? {
    let reduction = try TridiagonalReduction(of: matrix)
    var spectra: [[Double]] = []
    var current = matrix
    for site in sites.reversed() {
      let values =
        spectra.isEmpty
        ? try reduction.eigenvalues() : try SymmetricEigendecomposition.values(of: current, precision: precision)
      let last = values.count - 1
      let tail = values[(spectra.isEmpty ? min(rank ?? last, last) : last)...]
      guard precision.resolves(tail.reduce(0, +), of: tail.count, largest: values[0]) else { return nil }
      spectra.append(values.map { max(0, $0).squareRoot() })
      current = Self.partialTrace(current, over: site)
    }
    return (spectra.reversed(), reduction)
  }

  /// Traces out the innermost `inner` values of the index.
  static func partialTrace(_ matrix: Matrix<Double>, over inner: Int) -> Matrix<Double> {
    let size = matrix.rows
    let outer = size / inner
    return Matrix(rows: outer, columns: outer) { target in
      for row in 0..<outer {
        for column in 0..<outer {
          var sum = 0.0
          var place = row * inner * size + column * inner
          for _ in 0..<inner {
            sum += matrix.elements[place]
            place += size + 1
          }
          target[row * outer + column] = sum
        }
      }
    }
  }

  /// The isometries of a truncation to `bonds` (`bonds[k]` between site k and the next), one after the other from the
  /// outermost site, each computed on what the ones before have left, those that discard nothing identities; nil when the
  /// precision does not suffice to tell what is to be discarded.
  func isometries(bonds: [Int]) throws -> IsometryChain? {
    var chain = IsometryChain()
    var current = matrix
    var rest = sites.reduce(1, *)
    for (site, bond) in zip(sites, bonds) {
      rest /= site
      let size = current.rows / rest
      guard bond < size else {
        chain.append(.identity(size), site: site)
        continue
      }
      let reduction = try TridiagonalReduction(of: Self.partialTrace(current, over: rest))
      let values = try reduction.eigenvalues()
      let discarded = values[bond...]
      guard precision.resolves(discarded.reduce(0, +), of: discarded.count, largest: values[0]) else { return nil }
      let projection = try reduction.leadingEigenvectors(bond)
      if rest > 1 { current = Self.project(current, with: projection, rest: rest) }
      chain.append(projection.transposed(), site: site)
    }
    return chain
  }

  /// `(V ⊗ 1) ρ (V ⊗ 1)ᵀ` for `V = [kept, m]` on the outer index of `ρ = [m · rest, m · rest]`.
  private static func project(_ density: Matrix<Double>, with v: Matrix<Double>, rest: Int) -> Matrix<Double> {
    let (kept, m) = (v.rows, v.columns)
    // Once on the rows, then, by symmetry, on the transposed columns.
    let rowsDone = v * density.reshaped(rows: m, columns: rest * m * rest)
    let transposed = rowsDone.reshaped(rows: kept * rest, columns: m * rest).transposed()
    let columnsDone = v * transposed.reshaped(rows: m, columns: rest * kept * rest)
    return columnsDone.reshaped(rows: kept * rest, columns: kept * rest)
  }
}

/// Isometries from the end of a chain towards its centre.
struct IsometryChain {
  /// `cores[k]`: `[bond before · site, bond after]`, orthonormal columns.
  private(set) var cores: [Matrix<Double>] = []
  /// Their contraction: `[∏ sites, last bond]`, orthonormal columns.
  private(set) var basis = Matrix<Double>.identity(1)

  mutating func append(_ core: Matrix<Double>, site: Int) {
    basis = (basis * core.reshaped(rows: basis.columns, columns: site * core.columns))
      .reshaped(rows: basis.rows * site, columns: core.columns)
    cores.append(core)
  }
}
