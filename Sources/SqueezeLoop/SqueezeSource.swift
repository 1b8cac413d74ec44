import Checkpoints
import Conversion
import Files
import LinearAlgebra
import MPOCheckpoints
import Squeezing
import TensorNetworks

/// The model that a squeeze begins with: an MPO checkpoint, or a dense one, whose matrices then stay dense until their
/// cores are smaller.
struct SqueezeSource: Sendable {
  private enum Content: Sendable {
    case dense(any DenseCheckpoint)
    case cores(MPOCheckpoint)
  }
  private let content: Content
  let path: String
  /// Of the checkpoint that is evaluated first: every tensor as it is in the input.
  let records: [TensorRecord]
  /// The matrices whose bonds may be lowered.
  let candidates: [SqueezeCandidate]
  /// The input's own files.
  let files: [FileFingerprint]
  /// Where the tensors came from in the first place.
  let origin: Manifest.Source?
  /// How an MPO checkpoint was made.
  let manifestOptions: [String: String]
  /// Whether the output is packed.
  let packs: Bool
  private let companions: [String]
  private let companionFolder: String?

  /// Opens the input and reads all of its files once, for their fingerprints.
  /// - Throws: `ConversionError` for a selection that does not fit it.
  init(path: String, selection: TensorSelection, options: SqueezeOptions, jobs: Int) throws {
    self.path = path
    if MPOCheckpoint.isPresent(at: path) {
      let checkpoint = try MPOCheckpoint(path: path)
      if let part = checkpoint.manifest.part {
        throw ConversionError.onePart(path: path, index: part.index, count: part.count)
      }
      content = .cores(checkpoint)
      records = checkpoint.manifest.tensors
      candidates = try selection.candidates(in: checkpoint)
      origin = checkpoint.manifest.source
      manifestOptions = checkpoint.manifest.options ?? [:]
      companions = checkpoint.manifest.companions.map(\.file).filter { $0 != MPOCheckpointWriter.indexName }
      companionFolder = path
      if let damaged = try checkpoint.damagedFiles().first { throw damaged }
      files = checkpoint.manifest.shards + checkpoint.manifest.companions
    } else {
      let checkpoint = try openDenseCheckpoint(at: path)
      let network = try SourceNetwork(checkpoint, selection: selection)
      content = .dense(checkpoint)
      records = checkpoint.tensors.map { tensor in
        TensorRecord(
          name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, orientation: tensor.orientation,
          storage: network.ties[tensor.name].map { .tied(to: $0.name) } ?? .dense)
      }
      candidates = network.matrices.map {
        SqueezeCandidate(name: $0.tensor.name, rows: $0.rows, columns: $0.columns, shape: $0.shape)
      }
      let fingerprints = ParallelResults<FileFingerprint>(count: checkpoint.files.count)
      try forEachInParallel(Array(checkpoint.files.indices), jobs: jobs) {
        fingerprints[$0] = try FileFingerprint(ofFileAt: checkpoint.files[$0])
      }
      files = checkpoint.files.indices.compactMap { fingerprints[$0] }
      origin = Manifest.Source(format: checkpoint.format, files: files, metadata: checkpoint.metadata)
      manifestOptions = [:]
      companions = checkpoint.companions
      companionFolder = checkpoint.folder
    }
    packs = options.packs || records.contains { !$0.packed.isEmpty }
    let names = candidates.map(\.name)
    for floor in options.minimumBonds where !names.contains(where: { matches(floor.glob, $0) }) {
      throw ConversionError.globMatchesNothing(option: "--min-bond", glob: floor.glob, path: path)
    }
    for glob in options.ties {
      let tied = candidates.filter { matches(glob, $0.name) }
      guard let first = tied.first else {
        throw ConversionError.globMatchesNothing(option: "--tie", glob: glob, path: path)
      }
      for other in tied {
        guard other.shape == first.shape else { throw SqueezeError.tiedShapesDiffer(first.name, other.name) }
        guard other.bonds == first.bonds else {
          throw SqueezeLoopError.input(
            path: path,
            reason:
              "'\(escaped(first.name))' and '\(escaped(other.name))' are tied but have different bonds; convert the "
              + "model with the same --tie, or squeeze it without")
        }
      }
    }
  }

  /// Writes the input as the checkpoint that is evaluated first.
  func write(to folder: String, generator: String, jobs: Int) throws {
    switch content {
    case .cores(let checkpoint):
      try SqueezedCheckpoint(checkpoint, bonds: [:], records: records)
        .write(to: folder, jobs: jobs) { writer, records in
          try finish(writer, records, generator: generator, options: [:])
        }
    case .dense(let checkpoint):
      let writer = try MPOCheckpointWriter(folder: folder, records: records)
      try forEachInParallel(records.filter { $0.storage == .dense }, jobs: jobs) { record in
        try checkpoint.withBytes(of: record.info) { try writer.write($0, of: record) }
      }
      try finish(writer, records, generator: generator, options: [:])
    }
  }

  /// Completes a checkpoint that goes back to this input.
  func finish(
    _ writer: MPOCheckpointWriter, _ records: [TensorRecord], generator: String, options: [String: String]
  ) throws {
    try writer.finish(
      records: records, generator: generator, source: origin,
      options: manifestOptions.merging(options) { $1 }, companions: companions, from: companionFolder)
  }

  /// Whether the records of a squeezed checkpoint can be measured against the matrices they come from.
  var isDense: Bool { if case .dense = content { true } else { false } }

  /// The record with what can be said of its error: measured against the matrix of a dense input, nothing otherwise.
  func measured(_ record: TensorRecord, in checkpoint: MPOCheckpoint) throws -> TensorRecord {
    guard case .dense(let source) = content, var mpo = record.mpo else { return record }
    func measure<Scalar: CheckpointScalar>(_ type: Scalar.Type) throws {
      let cores: MPO<Scalar> = try checkpoint.mpo(record, mpo)
      try source.withMatrix(of: record.info, rows: mpo.rows, columns: mpo.columns) { (view: MatrixView<Scalar>) in
        mpo.relativeError = relativeError(of: cores, to: view)
        let profile = LayerProfile(
          name: record.name, rows: mpo.rows, columns: mpo.columns, norm: view.squaredNorm.squareRoot(),
          shape: mpo.shape, spectra: try SingularSpectra(of: view, shape: mpo.shape),
          singularValues: try Matrix.singularValues(of: view.elements, rows: view.rows, columns: view.columns))
        mpo.norm = profile.norm
        mpo.svdRelativeError = profile.svdRelativeError(parameters: mpo.parameterCount)
        mpo.entropies = profile.spectra.entanglementEntropies
      }
    }
    if record.dtype == .f64 { try measure(Double.self) } else { try measure(Float.self) }
    var result = record
    result.storage = .mpo(mpo)
    return result
  }
}

/// A matrix whose bonds may be lowered.
struct SqueezeCandidate: Sendable, Equatable {
  let name: String
  let rows: Int
  let columns: Int
  let shape: MPOShape
  /// In the input; nil where it is dense.
  var bonds: [Int]?
}

extension TensorSelection {
  /// The matrices of an MPO checkpoint that may be squeezed: those that are cores already, but for `exclude`.
  /// - Throws: `ConversionError` for a glob that matches none of them, and where there is none.
  fileprivate func candidates(in checkpoint: MPOCheckpoint) throws -> [SqueezeCandidate] {
    let all = checkpoint.manifest.tensors.compactMap { record in
      record.mpo.map {
        SqueezeCandidate(
          name: record.name, rows: $0.rows, columns: $0.columns, shape: $0.shape, bonds: $0.bonds)
      }
    }
    for (option, globs) in [("--include", include), ("--exclude", exclude)] {
      for glob in globs where !all.contains(where: { matches(glob, $0.name) }) {
        throw ConversionError.globMatchesNothing(option: option, glob: glob, path: checkpoint.path)
      }
    }
    let chosen = all.filter { candidate in
      (include.isEmpty || include.contains { matches($0, candidate.name) })
        && !exclude.contains { matches($0, candidate.name) }
    }
    guard !chosen.isEmpty else {
      throw SqueezeLoopError.input(
        path: checkpoint.path,
        reason:
          "keeps no matrix as cores that could be squeezed; convert the dense model with --lossless, or squeeze that")
    }
    return chosen
  }
}
