import Checkpoints
import LinearAlgebra
import Synchronization
import TensorNetworks

/// What the profile of a network's matrices has computed that their decompositions need again, in a spool file between the
/// two. What is missing is computed again, to the same bytes. Safe to use from several threads.
final class KeptReductions: Sendable {
  private struct Key: Hashable {
    let matrix: TensorName
    let shape: MPOShape
  }

  private struct Kept {
    let left: KeptReduction?
    let right: KeptReduction?
  }

  private let spool: TriangleSpool
  private let kept = Mutex<[Key: Kept]>([:])

  /// - Parameter folder: where the spool file takes its room.
  init(for matrices: [WeightMatrix], in folder: String) {
    spool = TriangleSpool(
      in: folder,
      capacity: matrices.reduce(0) { sum, matrix in
        let (sites, centre) = (matrix.shape.siteDimensions, matrix.shape.centralIndex)
        let sides = [sites[..<centre], sites[(centre + 1)...]].map { $0.reduce(1, *) }
        return (sides + [min(matrix.rows, matrix.columns)]).reduce(sum) { $0 + TriangleSpool.byteCount(size: $1) }
      })
  }

  func keep(_ reductions: DensityReductions, of matrix: String, _ shape: MPOShape) {
    let kept = Kept(left: reductions.left.flatMap(spool.keep), right: reductions.right.flatMap(spool.keep))
    self.kept.withLock { $0[Key(matrix: TensorName(matrix), shape: shape)] = kept }
  }

  /// nil where nothing is known of the matrix in this shape.
  func reductions(of matrix: String, _ shape: MPOShape) throws -> DensityReductions? {
    guard let kept = kept.withLock({ $0[Key(matrix: TensorName(matrix), shape: shape)] }) else { return nil }
    return DensityReductions(left: try kept.left?.read(), right: try kept.right?.read())
  }
}
