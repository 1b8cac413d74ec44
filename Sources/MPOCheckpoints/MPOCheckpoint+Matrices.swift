import Checkpoints
import LinearAlgebra
import TensorNetworks

/// From what is stored to matrices: arrays, chains, operators, tensors.
extension MPOCheckpoint {
  /// The elements of a whole array, widened exactly.
  func elements<Scalar: CheckpointScalar>(of array: any StoredArray) throws -> [Scalar] {
    do {
      return try array.encoding.decode(array.name, shape: array.shape) { try withEntryBytes(of: $0, $1) }
    } catch let error as ArrayEncodingError {
      throw MPOCheckpointError.tensor(
        path: path, tensor: array.name, reason: "\(error); convert the model again")
    }
  }

  private func core(_ name: String) throws -> CoreRecord {
    guard let core = contents.core(named: name) else {
      throw MPOCheckpointError.tensor(path: path, tensor: name, reason: "is missing")
    }
    return core
  }

  /// The indices of a permutation.
  func permutation(_ name: String) throws -> [Int] {
    let core = try core(name)
    guard let entry = core.entries.first else { return [] }
    let indices = try withEntryBytes(of: entry) { ArrayEncoding.indices($0, entry.dtype) }
    guard indices.sorted().elementsEqual(0..<core.shape[0]) else {
      throw MPOCheckpointError.tensor(
        path: path, tensor: name, reason: "is not a permutation: it lacks an index; convert the model again")
    }
    return indices
  }

  /// The chain of an operator: its whole cores, singular values multiplied into the central one; without bases.
  /// - Throws: `CheckpointError` and `MPOCheckpointError` when they can't be read.
  public func chain<Scalar: CheckpointScalar>(
    _ record: OperatorRecord, as type: Scalar.Type = Scalar.self
  ) throws -> MPO<Scalar> {
    let cores = try record.cores.map { name in
      let core = try core(name)
      return MPOCore<Scalar>(shape: core.shape, elements: try elements(of: core))
    }
    let chain = MPO(shape: record.shape, cores: cores)
    guard let name = record.singularValues else { return chain }
    return GaugedMPO(gauge: record.gauge, mpo: chain, singularValues: try elements(of: core(name))).absorbed
  }

  /// The matrix `[I, J]` of an operator, in its bases.
  /// - Throws: `CheckpointError` and `MPOCheckpointError` when cores can't be read.
  public func matrix<Scalar: CheckpointScalar>(
    _ record: OperatorRecord, as type: Scalar.Type = Scalar.self
  ) throws -> Matrix<Scalar> {
    var matrix = try chain(record, as: type).matrix(rows: record.rows, columns: record.columns)
    if let basis = record.rowBasis { matrix = try applied(basis, matrix) }
    if let basis = record.columnBasis { matrix = try applied(basis, matrix.transposed()).transposed() }
    return matrix
  }

  /// `U D M` for the rows of `M`.
  private func applied<Scalar: CheckpointScalar>(
    _ basis: OperatorRecord.BasisRecord, _ matrix: Matrix<Scalar>
  ) throws -> Matrix<Scalar> {
    var result = matrix
    if let name = basis.scale {
      let scales: [Scalar] = try elements(of: core(name))
      result = result.scaled(rowsBy: scales)
    }
    if let name = basis.basis {
      result = Matrix(rows: matrix.rows, columns: matrix.rows, elements: try elements(of: core(name))) * result
    }
    if let name = basis.permutation {
      let order = try permutation(name)
      let source = result.elements
      result = Matrix(
        rows: result.rows, columns: result.columns,
        elements: order.flatMap { source[$0 * matrix.columns..<($0 + 1) * matrix.columns] })
    }
    return result
  }

  /// The matrix of a tensor made of operators: its blocks, stacked; the terms of a block, added.
  ///
  /// Memory: the matrix, and one operator at a time.
  /// - Throws: `CheckpointError` and `MPOCheckpointError` when cores can't be read.
  public func matrix<Scalar: CheckpointScalar>(
    of blocks: BlockMatrix, as type: Scalar.Type = Scalar.self
  ) throws -> Matrix<Scalar> {
    if let name = blocks.wholeOperator { return try matrix(self.operator(name)) }
    var elements: [Scalar] = []
    elements.reserveCapacity(blocks.rows * blocks.columns)
    var last: (name: String, matrix: Matrix<Scalar>)?
    for block in blocks.blocks {
      var sum: [Scalar]?
      for term in block {
        let whole =
          try last.flatMap { TensorName($0.name) == TensorName(term.operator) ? $0.matrix : nil }
          ?? matrix(self.operator(term.operator))
        last = (term.operator, whole)
        let range = whole.range(rows: term.rows, columns: term.columns)
        sum = sum.map { zip($0, range).map { $0 + $1 } } ?? range
      }
      elements += sum ?? []
    }
    return Matrix(rows: blocks.rows, columns: blocks.columns, elements: elements)
  }

  /// - Throws: `MPOCheckpointError` where there is none of that name.
  public func `operator`(_ name: String) throws -> OperatorRecord {
    guard let record = contents.operator(named: name) else {
      throw MPOCheckpointError.tensor(path: path, tensor: name, reason: "is missing")
    }
    return record
  }
}

extension Matrix {
  /// The elements of a range, row-major.
  fileprivate func range(rows range: Range<Int>?, columns columnRange: Range<Int>?) -> [Scalar] {
    let (rowRange, columnRange) = (range ?? 0..<rows, columnRange ?? 0..<columns)
    if columnRange.count == columns {
      return Array(elements[rowRange.lowerBound * columns..<rowRange.upperBound * columns])
    }
    return rowRange.flatMap { elements[$0 * columns + columnRange.lowerBound..<$0 * columns + columnRange.upperBound] }
  }
}
