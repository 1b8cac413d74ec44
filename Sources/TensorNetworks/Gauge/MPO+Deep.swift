import Glibc
import LinearAlgebra

extension MPO {
  /// The same operator with square cores between its two frames: the frames are isometries, the cores between them diagonal,
  /// each with the root of the singular values of which their product is the singular values (arXiv 2311.05061).
  ///
  /// - Precondition: the first site has all of the rows, the last all of the columns (`MPOShape.isFactored`).
  /// - Parameter sites: at least 3.
  /// - Throws: `LinearAlgebraError`.
  public func deepened(sites: Int) throws -> MPO {
    let count = cores.count
    let left = try QRDecomposition(of: cores[0].converted(to: Double.self).leftUnfolding)
    let right = try QRDecomposition(of: cores[count - 1].converted(to: Double.self).rightUnfolding.transposed())
    var middle = left.r
    for core in cores[1..<(count - 1)] { middle = middle * core.converted(to: Double.self).leftUnfolding }
    let decomposition = try SingularValueDecomposition(of: middle * right.r.transposed())
    let rank = decomposition.values.count
    let roots = decomposition.values.map { pow($0, 1 / Double(sites - 2)) }
    let square = Matrix<Double>.identity(rank).scaled(rowsBy: roots)
    let shape = MPOShape.factored(rows: shape.rows, columns: shape.columns, sites: sites)
    let factors =
      [left.q * decomposition.left] + Array(repeating: square, count: sites - 2)
      + [decomposition.right * right.q.transposed()]
    return MPO(
      shape: shape,
      cores: zip(shape.coreShapes(bonds: Array(repeating: rank, count: sites - 1)), factors).map {
        MPOCore(shape: $0, elements: $1.converted(to: Scalar.self).elements)
      })
  }
}
