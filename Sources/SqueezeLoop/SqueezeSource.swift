import Checkpoints
import Conversion
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes
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
  /// Of the checkpoint that is evaluated first: everything as it is in the input.
  let contents: CheckpointContents
  /// The operators and dense matrices whose bonds may be lowered.
  let candidates: [SqueezeCandidate]
  /// What is left as it is, and why.
  let warnings: [String]
  /// The input's own files.
  let files: [FileFingerprint]
  /// Where the tensors of an MPO checkpoint came from in the first place.
  private let origin: CheckpointManifest.Source?
  /// How an MPO checkpoint was made.
  let conversion: ConversionRecipe?
  /// Of the operators of the output; nil for those they have.
  private let gauge: Gauge?
  /// Whether the output is packed.
  let packs: Bool
  private let companions: [Companion]
  private let companionFolder: String?

  /// Opens the input and reads all of its files once, for their fingerprints.
  /// - Throws: `ConversionError` for a selection that does not fit it.
  init(path: String, selection: TensorSelection, options: SqueezeOptions, followingLinks: Bool = false, jobs: Int)
    throws
  {
    self.path = path
    if MPOCheckpoint.isPresent(at: path) {
      let checkpoint = try MPOCheckpoint(path: path)
      if let part = checkpoint.manifest.part {
        throw ConversionError.onePart(path: path, index: part.index, count: part.count)
      }
      content = .cores(checkpoint)
      contents = checkpoint.contents
      candidates = try selection.candidates(in: checkpoint)
      let shared = contents.sharedCores
      warnings = contents.operators.filter { !checkpoint.contents.hasOwnChain($0, shared: shared) }.map {
        "operator '\(escaped($0.name))' shares cores with others; it stays unchanged"
      }
      origin = checkpoint.manifest.source
      conversion = checkpoint.manifest.conversion
      companions = checkpoint.manifest.companions.map(\.file).filter { $0 != MPOCheckpointWriter.indexName }
        .map(Companion.init(stored:))
      companionFolder = path
      if let damaged = try checkpoint.damagedFiles().first { throw damaged }
      files = checkpoint.manifest.shards + checkpoint.manifest.companions
    } else {
      let checkpoint = try openDenseCheckpoint(at: path, followingLinks: followingLinks)
      var matrices = selection
      matrices.experts = false
      let network = try SourceNetwork(checkpoint, selection: matrices)
      content = .dense(checkpoint)
      contents = CheckpointContents(
        tensors: checkpoint.tensors.map { tensor in
          var record = TensorRecord(dense: tensor)
          record.isTrainingState = network.isTrainingState(tensor)
          if let target = network.ties[tensor.key] { record.storage = .tied(to: target.name) }
          return record
        })
      candidates = network.matrices.map {
        SqueezeCandidate(
          name: $0.tensor.name, split: MatrixSplit(rows: $0.rows, columns: $0.columns, shape: $0.shape),
          gauge: options.gauge ?? .compact)
      }
      let configuration = ModelConfiguration(of: checkpoint)
      warnings =
        checkpoint.notices + network.notices
        + checkpoint.tensors.filter { configuration.expertCount(of: $0) != nil }.map {
          "tensor '\(escaped($0.name))' is a stack of experts and stays dense: to squeeze it, convert the model first"
        }
      let fingerprints = ParallelResults<FileFingerprint>(count: checkpoint.files.count)
      try forEachInParallel(Array(checkpoint.files.indices), jobs: jobs) {
        fingerprints[$0] = try FileFingerprint(ofFileAt: checkpoint.files[$0])
      }
      files = checkpoint.files.indices.compactMap { fingerprints[$0] }
      origin = nil
      conversion = nil
      companions = checkpoint.companions.map(Companion.init(ofModel:))
      companionFolder = checkpoint.folder
    }
    gauge = options.gauge
    packs = options.packs || contents.isPacked
    let names = candidates.map(\.name)
    for floor in options.minimumBonds where !names.contains(where: { matches(floor.glob, $0) }) {
      throw ConversionError.globMatchesNothing(member: "minimum_bond", glob: floor.glob, path: path)
    }
    for glob in options.ties {
      let tied = candidates.filter { matches(glob, $0.name) }
      guard let first = tied.first else {
        throw ConversionError.globMatchesNothing(member: "ties", glob: glob, path: path)
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
      try SqueezedCheckpoint(checkpoint, gauge: gauge).write(to: folder, jobs: jobs) {
        try finish($0, generator: generator)
      }
    case .dense(let checkpoint):
      let writer = try MPOCheckpointWriter(folder: folder, contents: contents)
      try forEachInParallel(contents.tensors.filter(\.isDense), jobs: jobs) { record in
        try checkpoint.withBytes(of: record.info) { try writer.write($0, of: record) }
      }
      try finish(writer, generator: generator)
    }
  }

  /// Completes a checkpoint that goes back to this input.
  func finish(
    _ writer: MPOCheckpointWriter, records: [TensorRecord] = [], operators: [OperatorRecord] = [], generator: String,
    squeeze: CheckpointManifest.Squeeze? = nil
  ) throws {
    var origin = origin
    if case .dense(let checkpoint) = content {
      origin = try CheckpointManifest.Source(of: checkpoint, writingSkeletonsTo: writer.folder)
      origin?.files = files
    }
    try writer.finish(
      records: records, operators: operators, generator: generator, source: origin, conversion: conversion,
      squeeze: squeeze,
      companions: companions, from: companionFolder)
  }

  /// Whether the records of a squeezed checkpoint can be measured against the matrices they come from.
  var isDense: Bool { if case .dense = content { true } else { false } }

  /// What can be said of a tensor's error: measured against the matrix of a dense input, as it was otherwise.
  func measured(
    _ record: TensorRecord, in checkpoint: MPOCheckpoint
  ) throws -> (tensor: TensorRecord, operator: OperatorRecord?) {
    guard case .dense(let source) = content, var chain = checkpoint.contents.ordinaryOperator(of: record) else {
      return (record, nil)
    }
    var result = record
    func measure<Scalar: CheckpointScalar>(_ type: Scalar.Type) throws {
      let cores: MPO<Scalar> = try checkpoint.chain(chain)
      try source.withMatrix(of: record.info, rows: chain.rows, columns: chain.columns) { (view: MatrixView<Scalar>) in
        let profile = LayerProfile(
          name: record.name, split: chain.split, norm: view.norm,
          spectra: try SingularSpectra(of: view, shape: chain.shape),
          singularValues: try Matrix.singularValues(of: view.elements, rows: view.rows, columns: view.columns))
        result.blocks?.relativeError = relativeError(of: cores, to: view)
        result.blocks?.norm = profile.norm
        result.blocks?.svdRelativeError = profile.svdRelativeError(
          parameters: checkpoint.contents.valueCount(of: chain), gauge: chain.gauge)
        chain.entropies = profile.spectra?.entanglementEntropies
      }
    }
    if checkpoint.contents.needsDoublePrecision(record) { try measure(Double.self) } else { try measure(Float.self) }
    return (result, chain)
  }
}

/// A matrix whose bonds may be lowered.
struct SqueezeCandidate: Sendable, Equatable {
  /// Of the operator; of the matrix where it is dense.
  let name: String
  let split: MatrixSplit
  /// In the input; nil where it is dense.
  var bonds: [Int]?
  let gauge: Gauge

  var rows: Int { split.rows }
  var columns: Int { split.columns }
  var shape: MPOShape { split.shape }
}

extension TensorSelection {
  /// The operators of an MPO checkpoint that may be squeezed: those whose cores are their own, but for `exclude`.
  /// - Throws: `ConversionError` for a glob that matches none of them, and where there is none.
  fileprivate func candidates(in checkpoint: MPOCheckpoint) throws -> [SqueezeCandidate] {
    let shared = checkpoint.contents.sharedCores
    let all = checkpoint.contents.operators.compactMap { record -> SqueezeCandidate? in
      guard checkpoint.contents.hasOwnChain(record, shared: shared) else { return nil }
      return SqueezeCandidate(name: record.name, split: record.split, bonds: record.bonds, gauge: record.gauge)
    }
    for (member, globs) in [("selection.include", include), ("selection.exclude", exclude)] {
      for glob in globs where !all.contains(where: { matches(glob, $0.name) }) {
        throw ConversionError.globMatchesNothing(member: member, glob: glob, path: checkpoint.path)
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
          "has no operator that can be squeezed; convert the dense model with --lossless first, or squeeze the dense model"
      )
    }
    return chosen
  }
}
