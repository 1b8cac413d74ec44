import LinearAlgebra

/// Matrices `W_l` of one shape as chains of full bonds with one central core: `W_l ≈ A_l C B_l` with orthogonal matrices `A_l` and
/// `B_l` for the sites left and right of the centre, which least `Σ ‖W_l − A_l C B_l‖²` chooses (for sharing central cores see
/// MPOBERT, arXiv 2303.16753).
public struct CommonCentre: Sendable {
  /// One chain for each matrix; all have the same central core.
  public let chains: [MPO<Double>]
  /// `Σ ‖W_l − A_l C B_l‖² / Σ ‖W_l‖²` with the central core of the first matrix, and after every sweep; never rising.
  public let squaredErrors: [Double]

  /// Alternates between the central core, the mean of `A_lᵀ W_l B_lᵀ`, and the orthogonal matrices, polar factors; each step
  /// is the optimum with the others as they are. It begins with the central core of the first matrix and the best
  /// orthogonal matrices for it.
  ///
  /// O(I·J·(L + R) + L³ + R³) for each matrix and sweep, for sizes L and R left and right of the centre.
  /// - Parameters:
  ///   - matrices: `[I, J]` each.
  ///   - shape: of at least 3 sites.
  ///   - alignmentSweeps: sweeps over the orthogonal matrices before the central core moves.
  ///   - maximumSweeps: sweeps at most.
  ///   - tolerance: the last sweep lowered the squared error by less than this part of it.
  /// - Precondition: the matrices have the same sides and fit the shape; their squares neither vanish nor overflow.
  /// - Throws: `LinearAlgebraError`.
  public init(
    of matrices: [Matrix<Double>], shape: MPOShape, alignmentSweeps: Int = 10, maximumSweeps: Int = 60,
    tolerance: Double = 1e-4
  ) throws {
    let centre = shape.centralIndex
    let right = shape.siteDimensions[(centre + 1)...].reduce(1, *)
    let middle = shape.siteDimensions[centre]
    let left = shape.siteDimensions[..<centre].reduce(1, *)
    let tensors = matrices.map { matrix in
      matrix.withView { SiteOrder(shape, rows: matrix.rows, columns: matrix.columns).tensor(of: $0) }
    }
    let total = tensors.reduce(0) { $0 + $1.norm * $1.norm }
    var central = tensors[0].reshaped(rows: left * middle, columns: right)
    var sides = tensors.map { _ in (left: Matrix<Double>.identity(left), right: Matrix<Double>.identity(right)) }
    var errors: [Double] = []
    // `A_lᵀ W_l B_lᵀ` for the best orthogonal matrices, one after the other.
    func aligned(_ index: Int) throws -> Matrix<Double> {
      let tensor = tensors[index]
      if left > 1 {
        let image = (central * sides[index].right).reshaped(rows: left, columns: middle * right)
        sides[index].left = try Self.polarFactor(of: tensor * image.transposed())
      }
      let half = (sides[index].left.transposed() * tensor).reshaped(rows: left * middle, columns: right)
      if right > 1 { sides[index].right = try Self.polarFactor(of: central.transposed() * half) }
      return half * sides[index].right.transposed()
    }
    for _ in 0..<max(1, alignmentSweeps) { for index in tensors.indices { _ = try aligned(index) } }
    func error(_ images: [Matrix<Double>]) -> Double {
      images.reduce(0) { sum, image in
        var difference = image
        difference.subtract(central)
        return sum + difference.norm * difference.norm
      } / max(total, .leastNormalMagnitude)
    }
    errors.append(error(try tensors.indices.map(aligned)))
    for _ in 0..<maximumSweeps {
      let images = try tensors.indices.map(aligned)
      var sum = images[0]
      for image in images.dropFirst() {
        sum.subtract(image.scaled(rowsBy: Array(repeating: -1, count: image.rows)))
      }
      central = sum.scaled(rowsBy: Array(repeating: 1 / Double(images.count), count: sum.rows))
      errors.append(error(images))
      if errors[errors.count - 2] - errors[errors.count - 1] <= tolerance * errors[errors.count - 1] { break }
    }
    squaredErrors = errors
    let shapes = shape.coreShapes(bonds: shape.fullBonds)
    chains = sides.map { side in
      MPO(
        shape: shape,
        cores: shapes.enumerated().map { site, coreShape in
          let elements: [Double] =
            switch site {
            case centre: central.elements
            case centre - 1: side.left.elements
            case centre + 1: side.right.elements
            default: Matrix<Double>.identity(site < centre ? coreShape[3] : coreShape[0]).elements
            }
          return MPOCore(shape: coreShape, elements: elements)
        })
    }
  }

  /// The orthogonal matrix nearest to a square one.
  private static func polarFactor(of matrix: Matrix<Double>) throws -> Matrix<Double> {
    let decomposition = try SingularValueDecomposition(of: matrix)
    return decomposition.left * decomposition.right
  }
}
