import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Recipes
import TensorNetworks

/// The singular spectra of a tensor of a dense checkpoint, at the bonds a conversion would give it by default.
/// - Throws: `ConversionError.mismatch` for a tensor that is no floating-point matrix.
public func sourceSpectra(of tensor: TensorInfo, in checkpoint: any DenseCheckpoint) throws -> SingularSpectra {
  guard let sides = WeightMatrix.sides(of: tensor) else {
    throw ConversionError.mismatch(
      path: checkpoint.path, tensor: tensor.name, reason: "is not a floating-point matrix, so it has no singular values"
    )
  }
  let shape = MPOShape.automatic(rows: sides.rows, columns: sides.columns, sites: TensorSelection().sites)
  return try checkpoint.withMatrix(of: tensor, rows: sides.rows, columns: sides.columns) {
    (view: MatrixView<Double>) in try SingularSpectra(of: view, shape: shape)
  }
}

/// The singular spectra of a tensor as an MPO checkpoint has it now.
/// - Throws: `ConversionError.mismatch` for a tensor that is not kept as cores.
public func storedSpectra(of record: TensorRecord, in checkpoint: MPOCheckpoint) throws -> SingularSpectra {
  let holder = try checkpoint.holder(of: record)
  guard let chain = checkpoint.contents.ordinaryOperator(of: holder) else {
    throw ConversionError.mismatch(
      path: checkpoint.path, tensor: record.name, reason: "is not stored as one whole operator, so it has no spectra")
  }
  let cores: MPO<Double> = try checkpoint.chain(chain)
  return try cores.matrix(rows: chain.rows, columns: chain.columns).withView {
    try SingularSpectra(of: $0, shape: chain.shape)
  }
}

extension TensorSelection {
  /// The factors that a tensor would get; nil where it stays dense.
  public func defaultShape(for tensor: TensorInfo) -> MPOShape? {
    guard let sides = WeightMatrix.sides(of: tensor), min(sides.rows, sides.columns) >= Self.minimumSide else {
      return nil
    }
    return .automatic(rows: sides.rows, columns: sides.columns, sites: sites)
  }
}
