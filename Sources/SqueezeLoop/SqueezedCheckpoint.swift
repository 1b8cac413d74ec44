import Checkpoints
import Conversion
import LinearAlgebra
import MPOCheckpoints
import Squeezing
import TensorNetworks

/// A checkpoint with some of its bonds lowered. Cores are truncated as they are, in core space; a dense matrix is
/// decomposed; what keeps its bonds keeps its bytes.
struct SqueezedCheckpoint: Sendable {
  private let source: MPOCheckpoint
  /// Of the result.
  let records: [TensorRecord]

  /// - Parameters:
  ///   - bonds: by name, the bonds of the matrices that change.
  ///   - candidates: what a dense matrix needs to become cores.
  ///   - coreDType: of such cores; nil for that of the matrix.
  ///   - keepsErrors: whether what the source says of the errors of unchanged matrices still holds.
  init(
    _ source: MPOCheckpoint, bonds: [String: [Int]], candidates: [String: SqueezeCandidate], coreDType: DType?,
    keepsErrors: Bool
  ) {
    let records = source.manifest.tensors.map { record in
      var result = record
      if let bonds = bonds[record.name] {
        if let mpo = record.mpo {
          result.storage = .mpo(
            MPORecord(
              rows: mpo.rows, columns: mpo.columns, shape: mpo.shape, bonds: bonds, coreDType: mpo.coreDType,
              centralScales: mpo.centralScales == nil ? nil : MPORecord.centralScales(mpo.shape, bonds: bonds),
              norm: mpo.norm, entropies: mpo.entropies))
        } else if let candidate = candidates[record.name] {
          result.storage = .mpo(
            MPORecord(
              rows: candidate.rows, columns: candidate.columns, shape: candidate.shape, bonds: bonds,
              coreDType: coreDType ?? record.dtype))
        }
      } else if !keepsErrors, var mpo = record.mpo {
        (mpo.relativeError, mpo.svdRelativeError) = (nil, nil)
        result.storage = .mpo(mpo)
      }
      return result
    }
    self.init(source, bonds: bonds, records: records)
  }

  /// - Parameter records: of the result; those of matrices that do not change may differ from the source's in what they
  ///   say of errors only.
  init(_ source: MPOCheckpoint, bonds: [String: [Int]], records: [TensorRecord]) {
    self.source = source
    self.records = records
  }

  /// - Parameters:
  ///   - folder: an empty folder.
  ///   - packs: whether entries that become smaller by it are packed.
  ///   - finish: completes it.
  func write(
    to folder: String, packs: Bool = false, jobs: Int, finish: (MPOCheckpointWriter, [TensorRecord]) throws -> Void
  ) throws {
    let writer = try MPOCheckpointWriter(folder: folder, records: records, packs: packs)
    BLASThreads.use(1)
    let largestFirst = records.sorted { ($1.info.byteCount, $0.name) < ($0.info.byteCount, $1.name) }
    try forEachInParallel(largestFirst, jobs: jobs) { try write($0, with: writer) }
    try finish(writer, records)
  }

  private func write(_ record: TensorRecord, with writer: MPOCheckpointWriter) throws {
    guard let present = source.record(named: record.name) else { return }
    switch (present.storage, record.storage) {
    case (.tied, _), (_, .tied): return
    case (_, .dense):
      try source.withDenseBytes(of: present) { try writer.write($0, of: record) }
    case (.mpo(let old), .mpo(let new)) where old.bonds == new.bonds:
      try writer.copy(record, from: source)
    case (.mpo(let old), .mpo(let new)):
      let cores: MPO<Double> = try source.mpo(present, old)
      _ = try writer.write(cores.truncated(to: new.bonds), of: record)
    case (.dense, .mpo(let new)):
      if present.dtype == .f64 {
        try decompose(present, new, as: Double.self, record, with: writer)
      } else {
        try decompose(present, new, as: Float.self, record, with: writer)
      }
    }
  }

  private func decompose<Scalar: CheckpointScalar>(
    _ present: TensorRecord, _ mpo: MPORecord, as type: Scalar.Type, _ record: TensorRecord,
    with writer: MPOCheckpointWriter
  ) throws {
    try source.withMatrix(of: present, rows: mpo.rows, columns: mpo.columns) { (view: MatrixView<Scalar>) in
      _ = try writer.write(MPO(decomposing: view, shape: mpo.shape, bonds: mpo.bonds), of: record)
    }
  }
}

extension MPOCheckpoint {
  /// Calls `body` with a tensor of kind dense as a matrix.
  func withMatrix<Scalar: CheckpointScalar, Result>(
    of record: TensorRecord, rows: Int, columns: Int, _ body: (MatrixView<Scalar>) throws -> Result
  ) throws -> Result {
    try withDenseBytes(of: record) { bytes in
      try Scalar.withElements(bytes, of: record.dtype) { try body(MatrixView($0, rows: rows, columns: columns)) }
    }
  }

  /// What a squeeze needs to know of a matrix as it is now; nil where its elements are not finite, or too large.
  func profile(of candidate: SqueezeCandidate) throws -> LayerProfile? {
    guard let record = record(named: candidate.name) else {
      throw MPOCheckpointError.tensor(path: path, tensor: candidate.name, reason: "is not there")
    }
    func profile(_ spectra: SingularSpectra, norm: Double) -> LayerProfile {
      LayerProfile(
        name: candidate.name, rows: candidate.rows, columns: candidate.columns, norm: norm, shape: candidate.shape,
        spectra: spectra, singularValues: [])
    }
    func isUsable(_ norm: Double) -> Bool { norm.isFinite && norm < Double(Float.greatestFiniteMagnitude) / 1e4 }
    func dense<Scalar: CheckpointScalar>(_ type: Scalar.Type) throws -> LayerProfile? {
      try withMatrix(of: record, rows: candidate.rows, columns: candidate.columns) { (view: MatrixView<Scalar>) in
        let norm = view.squaredNorm.squareRoot()
        return isUsable(norm) ? profile(try SingularSpectra(of: view, shape: candidate.shape), norm: norm) : nil
      }
    }
    guard let mpo = record.mpo else {
      return record.dtype == .f64 ? try dense(Double.self) : try dense(Float.self)
    }
    let cores: MPO<Double> = try self.mpo(record, mpo)
    guard cores.cores.allSatisfy({ $0.elements.allSatisfy(\.isFinite) }) else { return nil }
    let spectra = try cores.spectra()
    let norm = spectra.spectra[0].reduce(0) { $0 + $1 * $1 }.squareRoot()
    return isUsable(norm) ? profile(spectra, norm: norm) : nil
  }
}
