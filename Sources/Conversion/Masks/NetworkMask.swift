import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes
import TensorNetworks

/// The mask of a recipe.
struct NetworkMask: Sendable {
  /// nil: the zeros of the matrices.
  let file: MaskFile?
  let weights: MaskRule.Weights

  init(file: MaskFile?, weights: MaskRule.Weights = .sides) { (self.file, self.weights) = (file, weights) }

  /// - Parameter file: the one that the recipe names; nil for one without.
  /// - Throws: `MaskMismatch`.
  init?(_ rule: MaskRule?, _ file: MaskFile?) throws {
    switch (rule?.source, file) {
    case (nil, nil): return nil
    case (nil, let file?), (.zeros, let file?): throw MaskMismatch.unexpected(path: file.path, sha256: try file.sha256)
    case (.zeros, nil): break
    case (.file(let expected), nil): throw MaskMismatch.missing(sha256: expected)
    case (.file(let expected), let file?):
      let found = try file.sha256
      guard found == expected else {
        throw MaskMismatch.differs(path: file.path, sha256: found, expected: expected)
      }
    }
    self.file = file
    weights = rule?.weights ?? .sides
  }

  /// The checkpoint whose matrices are decomposed.
  func applied(to checkpoint: any DenseCheckpoint) -> any DenseCheckpoint {
    file?.applied(to: checkpoint) ?? checkpoint
  }

  /// Which elements of a matrix are kept, 1 or 0 each, row-major.
  /// - Parameter view: the masked matrix.
  func kept<Scalar>(
    of tensor: TensorInfo, expert: Int?, _ view: MatrixView<Scalar>
  ) throws -> [UInt8] {
    let count = view.elements.count
    guard let file else { return view.elements.map { $0 == 0 ? 0 : 1 } }
    return try file.kept(of: tensor, in: (expert ?? 0) * count..<((expert ?? 0) + 1) * count)
      ?? [UInt8](repeating: 1, count: count)
  }

  /// Checks that something is masked.
  /// - Throws: `ConversionError.stageFile` where every element of every matrix is kept.
  func requireEffect(on network: SourceNetwork) throws {
    for matrix in network.matrices {
      let isWhole = try network.checkpoint.withMatrix(
        of: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns
      ) { (view: MatrixView<Double>) in
        try file == nil
          ? view.elements.allSatisfy { $0 != 0 }
          : kept(of: matrix.tensor, expert: matrix.expert, view).allSatisfy { $0 == 1 }
      }
      if !isWhole { return }
    }
    throw ConversionError.stageFile(
      path: file?.path ?? network.checkpoint.path,
      reason: file == nil
        ? "has no zeros in the matrices that are decomposed, so a mask of its zeros changes nothing; leave it out"
        : "keeps every element of the matrices that are decomposed, so it changes nothing; leave it out")
  }
}

/// A mask file that is not that of a recipe.
public enum MaskMismatch: Error, Sendable, Hashable {
  /// The recipe has a mask of a file, and none is given.
  case missing(sha256: String)
  /// The recipe has none.
  case unexpected(path: String, sha256: String)
  /// The mask is another file than the one that the recipe names.
  case differs(path: String, sha256: String, expected: String)
}

extension MaskMismatch: CustomStringConvertible {
  public var description: String {
    switch self {
    case .missing(let sha256): "the recipe needs the mask with SHA-256 \(sha256), but none was given"
    case .unexpected(let path, let sha256):
      "the recipe has no mask file, but \(escaped(path, limit: 4096)) (SHA-256 \(sha256)) was given"
    case .differs(let path, let sha256, let expected):
      "the recipe needs the mask with SHA-256 \(expected), but \(escaped(path, limit: 4096)) has SHA-256 \(sha256)"
    }
  }
}
