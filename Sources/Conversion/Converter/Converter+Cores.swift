import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

extension Converter {
  /// Writes the cores of one matrix; integers of a factorisation are rounded so that the error in its metric is small.
  func write<Scalar: CheckpointScalar>(
    _ cores: GaugedMPO<Scalar>, of view: MatrixView<Scalar>, _ matrix: PlannedMatrix, _ metric: LayerMetric?,
    with writer: MPOCheckpointWriter
  ) throws -> MPO<Scalar> {
    let chain = matrix.chain
    let centre = chain.shape.centralIndex
    let integers = matrix.integers
    guard chain.shape.isFactored, chain.shape.siteCount == 2, chain.gauge != .spectral,
      integers.contains(where: { $0 != nil })
    else { return try writer.write(cores, of: chain) }
    let rounded = try (metric?.rounding ?? PreparedMetric(.frobenius)).rounded(
      cores, of: view, central: integers[centre], auxiliary: integers[1 - centre])
    return try writer.write(rounded.gauged, rounded: rounded.cores, of: chain)
  }

  /// The cores of one matrix, in the gauge of their record: in a metric, the best factorisation for two sites, refined ones
  /// for more. At full bonds nothing is lost in any metric.
  func cores<Scalar>(
    of view: MatrixView<Scalar>, _ chain: OperatorRecord, metric: LayerMetric?
  ) throws -> GaugedMPO<Scalar> {
    if chain.shape.isFactored, chain.shape.siteCount == 2, chain.gauge == .compact, chain.bonds == chain.shape.fullBonds
    {
      return GaugedMPO(whole: view)
    }
    if chain.shape.isDeep, metric?.hasFactorization != true {
      let shape = MPOShape.lowRank(rows: chain.rows, columns: chain.columns)
      let plain = try MPO(decomposing: view, shape: shape, bonds: [chain.bonds[0]])
      return try chain.gauged(
        metric.map { metric in
          try plain.refined(
            toward: view, metric: metric.forRefinement(rows: chain.rows, columns: chain.columns), options: refinement)
        } ?? plain)
    }
    guard let metric, chain.bonds != chain.shape.fullBonds || chain.shape.isDeep else {
      return try GaugedMPO(
        decomposing: view, shape: chain.shape, bonds: chain.bonds, gauge: chain.gauge, reductions: reductions(of: chain)
      )
    }
    if chain.shape.isFactored, let factorization = try metric.lowRank(of: view, rank: chain.bonds[0]) {
      return try chain.gauged(metric.refined(factorization, toward: view, options: refinement))
    }
    return try MPO(decomposing: view, shape: chain.shape, bonds: chain.bonds, reductions: reductions(of: chain))
      .refined(
        toward: view, metric: metric.forRefinement(rows: chain.rows, columns: chain.columns), options: refinement
      ).gauged(chain.gauge)
  }

  /// What the profile has left of a matrix for its decomposition.
  private func reductions(of chain: OperatorRecord) throws -> DensityReductions? {
    // The profile chose its precision for ranks whose factors are smaller than the matrix.
    let isProfiled =
      !chain.shape.isFactored || chain.bonds[0] * (chain.rows + chain.columns) <= chain.rows * chain.columns
    return isProfiled ? try reductions?.reductions(of: chain.name, chain.shape) : nil
  }
}

extension OperatorRecord {
  /// A factorisation of two sites as the operator has it.
  fileprivate func gauged<Scalar>(_ factorization: MPO<Scalar>) throws -> GaugedMPO<Scalar> {
    guard shape.isDeep else { return try factorization.gauged(gauge) }
    return GaugedMPO(gauge: .canonical, mpo: try factorization.deepened(sites: shape.siteCount))
  }
}

/// The bases of one operator, as they are stored.
struct StoredBases: Sendable {
  let rows: Basis
  let columns: Basis
}

extension Converter {
  /// Writes the bases that operators name, each once.
  /// - Returns: those of each operator, as they are stored.
  func write(
    _ bases: NetworkBases?, of contents: CheckpointContents, with writer: MPOCheckpointWriter
  ) throws -> [TensorName: StoredBases] {
    guard let bases else { return [:] }
    var stored: [TensorName: [Double]] = [:]
    var result: [TensorName: StoredBases] = [:]
    for chain in contents.operators where chain.rowBasis != nil || chain.columnBasis != nil {
      guard let own = bases[chain.name] else { continue }
      for (name, values) in own.cores where stored[TensorName(name)] == nil {
        switch values {
        case .numbers(let numbers): stored[TensorName(name)] = try writer.write(numbers, ofCore: name)
        case .indices(let indices):
          try writer.write(permutation: indices, ofCore: name)
          stored[TensorName(name)] = []
        }
      }
      func basis(_ exact: Basis, _ record: OperatorRecord.BasisRecord) -> Basis {
        var rotation = exact.rotation
        if case .orthogonal(let vectors) = rotation, let elements = record.basis.flatMap({ stored[TensorName($0)] }) {
          rotation = .orthogonal(Matrix(rows: vectors.rows, columns: vectors.columns, elements: elements))
        }
        return Basis(rotation: rotation, scale: record.scale.flatMap { stored[TensorName($0)] })
      }
      result[TensorName(chain.name)] = StoredBases(
        rows: basis(own.rows, own.rowRecord), columns: basis(own.columns, own.columnRecord))
    }
    return result
  }

  /// The cores of one matrix in its bases, refined in its metric.
  func cores<Scalar>(
    of view: MatrixView<Scalar>, _ chain: OperatorRecord, metric: LayerMetric, in bases: StoredBases
  ) throws -> GaugedMPO<Scalar> {
    try view.coordinates(rows: bases.rows, columns: bases.columns).withView { view in
      guard chain.bonds != chain.shape.fullBonds else {
        return try GaugedMPO(decomposing: view, shape: chain.shape, bonds: chain.bonds, gauge: chain.gauge)
      }
      return try MPO(decomposing: view, shape: chain.shape, bonds: chain.bonds)
        .refined(
          toward: view,
          metric: metric.forRefinement(rows: chain.rows, columns: chain.columns, inBases: true)
            .coordinates(rows: bases.rows, columns: bases.columns),
          options: refinement.inBases(rows: chain.rows, columns: chain.columns)
        ).gauged(chain.gauge)
    }
  }
}
