import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Recipes
import TensorNetworks

extension OperatorRecord {
  /// A chain in the gauge canonical whose central core has a name of its own.
  static func sharing(
    _ centre: String, name: String, _ split: MatrixSplit, bonds: [Int], dtype: DType, central: CentralEncoding?
  ) -> (operator: OperatorRecord, cores: [CoreRecord]) {
    let (record, cores) = ordinary(name: name, split, bonds: bonds, gauge: .canonical, dtype: dtype, central: central)
    let place = split.shape.centralIndex
    var names = record.cores
    names[place] = centre
    let shared = CoreRecord(
      name: centre, role: .central, shape: cores[place].shape, encoding: cores[place].encoding)
    return (
      OperatorRecord(
        name: name, rows: split.rows, columns: split.columns, shape: split.shape, bonds: bonds, gauge: .canonical,
        cores: names),
      cores.enumerated().map { $0 == place ? shared : $1 }
    )
  }
}

extension Converter {
  /// Factors matrices that have one central core, and what that leaves of each, and writes their operators.
  /// - Returns: the errors of each, measured on what is stored.
  func decomposeWithCommonCentre(
    _ matrices: [PlannedMatrix], of checkpoint: any DenseCheckpoint, with writer: MPOCheckpointWriter
  ) throws -> [OperatorErrors] {
    let elements = try matrices.map { matrix in
      try weights(of: checkpoint).withMatrix(
        of: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns
      ) { (view: MatrixView<Double>) in
        guard view.norm == 0 || (1e-100...1e100).contains(view.norm) else {
          throw ConversionError.mismatch(
            path: checkpoint.path, tensor: matrix.info.name,
            reason: "has elements whose squares vanish or overflow, so it can't share a central core; leave it out")
        }
        return Matrix(rows: view.rows, columns: view.columns, elements: Array(view.elements))
      }
    }
    let chain = matrices[0].chain
    let chains = try CommonCentre(of: elements, shape: chain.shape).chains
    let centre = chain.shape.centralIndex
    let central = try writer.write(chains[0].cores[centre].elements, ofCore: chain.cores[centre])
    return try matrices.indices.map { index in
      let cores = try chains[index].cores.enumerated().map { site, core in
        MPOCore(
          shape: core.shape,
          elements: site == centre
            ? central : try writer.write(core.elements, ofCore: matrices[index].chain.cores[site]))
      }
      let matrix = matrices[index]
      var stored = MPO(shape: chain.shape, cores: cores).matrix(rows: chain.rows, columns: chain.columns)
      return try elements[index].withView { view in
        let metric = try LayerMetric(
          of: view, info: matrix.info, tensor: matrix.tensor, expert: matrix.expert, statistics, mask)
        if let residual = matrix.residual {
          var rest = elements[index]
          rest.subtract(stored)
          let gauged = try rest.withView { try self.cores(of: $0, residual, metric: metric) }
          let added = try writer.write(gauged, of: residual)
          stored.subtract(
            added.matrix(rows: chain.rows, columns: chain.columns).scaled(
              rowsBy: Array(repeating: -1, count: chain.rows)))
        }
        return try errors(of: stored, to: view, matrix.tensor, matrix.expert, metric, checkpoint)
      }
    }
  }
}
