import LinearAlgebra

/// Spectra and truncation of cores as they are (fine-tuned ones, say), without the matrix they stand for: every step is a
/// decomposition of one core, so a bond costs what its neighbouring cores cost.
///
/// All of it is computed in double precision. Singular values and vectors come from density matrices, so that singular values
/// below about 1e-8 of the largest are rounding noise, and a truncation is the best one to that precision.
extension MPO where Scalar == Double {
  /// The singular spectra of the operator at every bond: at bond k + 1 as many values as it has in canonical form. What a
  /// bond could hold beyond them is zero.
  ///
  /// - Throws: `LinearAlgebraError`.
  public func spectra() throws -> SingularSpectra {
    let (canonical, scale) = try canonicalized().withUnitCentre
    var chain = CoreChain(canonical)
    let left = try chain.densities().map(singularValues)
    chain.mirror()
    let right = try chain.densities().map(singularValues)
    let spectra = left + right.reversed()
    return SingularSpectra(scale == 1 ? spectra : spectra.map { $0.map { $0 * scale } })
  }

  /// The operator truncated to `bonds` (each lowered to the present bond and to what the shape allows), in canonical
  /// form: one side of the centre from the end inwards, then the other on what is left, in the order of a decomposition to
  /// these bonds, each bond keeping the leading singular vectors. With one bond lowered this is the closest operator of
  /// that bond, and its error is the tail of the bond's spectrum; with several the squared error is at most the sum of
  /// the tails.
  ///
  /// - Throws: `LinearAlgebraError`.
  public func truncated(to bonds: [Int]) throws -> MPO {
    let bonds = shape.limitedBonds(zip(bonds, self.bonds).map { min($0, $1) })
    let centre = shape.centralIndex
    let (canonical, scale) = try canonicalized().withUnitCentre
    var chain = CoreChain(canonical)
    let (left, right) = (Array(bonds[..<centre]), Array(bonds[centre...].reversed()))
    let isLeftFirst = shape.isTruncatedLeftFirst(to: bonds)
    if !isLeftFirst { chain.mirror() }
    try chain.truncateLeft(to: isLeftFirst ? left : right)
    chain.mirror()
    try chain.truncateLeft(to: isLeftFirst ? right : left)
    if isLeftFirst { chain.mirror() }
    var cores = chain.cores
    if scale != 1 { cores[centre].elements = cores[centre].elements.map { $0 * scale } }
    return MPO(shape: shape, cores: cores)
  }

  /// The chain with the elements of its central core divided by a power of two, so that they can be squared.
  private var withUnitCentre: (mpo: MPO, scale: Double) {
    guard let factor = cores[shape.centralIndex].elements.withUnsafeBufferPointer({ Double.unitScale(of: $0) }) else {
      return (self, 1)
    }
    var cores = cores
    cores[shape.centralIndex].elements = cores[shape.centralIndex].elements.map { $0 * factor }
    return (MPO(shape: shape, cores: cores), 1 / factor)
  }
}

/// Cores being worked on from the left end to the central one; `mirror` turns the chain round, so that the same work
/// serves for both sides.
private struct CoreChain {
  private(set) var cores: [MPOCore<Double>]
  /// Index of the central core.
  private var centre: Int

  init(_ mpo: MPO<Double>) {
    cores = mpo.cores
    centre = mpo.shape.centralIndex
  }

  mutating func mirror() {
    cores = cores.reversed().map(\.mirrored)
    centre = cores.count - 1 - centre
  }

  /// For each bond left of the centre: `R Rᵀ = [d, d]` for everything right of the bond, `R = [d, …]`. Its eigenvalues are
  /// the squared singular values of the bond, as everything left of the bond is an isometry.
  ///
  /// - Precondition: the chain is in canonical form.
  func densities() -> [Matrix<Double>] {
    guard centre > 0 else { return [] }
    let central = cores[centre].rightUnfolding
    var gram = GramMatrix(size: central.rows)
    central.elements.withUnsafeBufferPointer { gram.addColumns($0.baseAddress!, columns: central.columns) }
    var densities = [gram.matrix()]
    for core in cores[1..<centre].reversed() {
      let right = core.multipliedFromRight(by: densities[densities.count - 1])
      densities.append(right.rightUnfolding * core.rightUnfolding.transposed())
    }
    return densities.reversed()
  }

  /// Lowers the bonds left of the centre, outermost first, each on what the ones before have left.
  ///
  /// - Precondition: the chain is in canonical form.
  mutating func truncateLeft(to bonds: [Int]) throws {
    guard zip(bonds, cores).contains(where: { $0 < $1.rightBond }) else { return }
    for (index, density) in densities().enumerated() {
      let core = cores[index].leftUnfolding
      let kept = bonds[index]
      let isometry =
        kept < core.columns
        ? try leadingVectors(kept, of: core * density * core.transposed()) : try QRDecomposition(of: core).q
      let shape = cores[index].shape
      cores[index] = MPOCore(shape: [shape[0], shape[1], shape[2], kept], elements: isometry.elements)
      cores[index + 1] = cores[index + 1].multipliedFromLeft(by: isometry.transposed() * core)
    }
  }
}

extension MPOCore<Double> {
  /// Left and right bond exchanged.
  fileprivate var mirrored: MPOCore {
    let site = rowFactor * columnFactor
    let block = 16
    let result = [Double](unsafeUninitializedCapacity: elements.count) { target, count in
      elements.withUnsafeBufferPointer { source in
        for s in 0..<site {
          for firstLeft in stride(from: 0, to: leftBond, by: block) {
            for firstRight in stride(from: 0, to: rightBond, by: block) {
              for left in firstLeft..<min(firstLeft + block, leftBond) {
                for right in firstRight..<min(firstRight + block, rightBond) {
                  target[(right * site + s) * leftBond + left] = source[(left * site + s) * rightBond + right]
                }
              }
            }
          }
        }
      }
      count = elements.count
    }
    return MPOCore(shape: [rightBond, rowFactor, columnFactor, leftBond], elements: result)
  }
}

/// As many as the density matrix has rows, largest first.
private func singularValues(of density: Matrix<Double>) throws -> [Double] {
  try SymmetricEigendecomposition.values(of: density).map { max(0, $0).squareRoot() }
}

/// `[density.rows, count]`: the leading eigenvectors in columns.
private func leadingVectors(_ count: Int, of density: Matrix<Double>) throws -> Matrix<Double> {
  try SymmetricEigendecomposition(of: density).vectors.firstRows(count).transposed()
}
