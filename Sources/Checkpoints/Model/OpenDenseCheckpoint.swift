import Files

/// Opens whatever dense checkpoint is at `path`:
///
/// - a safetensors file, an HDF5 file or a Keras archive, told apart by their content;
/// - the index of a sharded model (`*.safetensors.index.json`);
/// - a model folder with, in this order, `model.safetensors`, `model.safetensors.index.json`, the only other index,
///   the only `*.safetensors`, `tf_model.h5`, `model.h5`, the only `*.h5`, `*.hdf5` or `*.keras`. The other files of
///   the folder are then the checkpoint's `companions`.
///
/// - Throws: `CheckpointError`, which says what was found instead and what to do, and `FileError`.
public func openDenseCheckpoint(at path: String) throws -> any DenseCheckpoint {
  guard let status = try FileStatus(at: path) else { throw FileError.missing(path: path) }
  switch status.kind {
  case .folder: return try openModelFolder(ModelFolder(path: path))
  case .file: return try open(CheckpointFile(path: path, givenPath: path))
  default:
    throw CheckpointError.notACheckpoint(
      path: path, reason: "is \(status.kind.rawValue); a checkpoint is a regular file or a folder")
  }
}

/// Opens one file by its content, or by its name where the content says nothing else.
private func open(_ file: CheckpointFile) throws -> any DenseCheckpoint {
  let foreign = ForeignFormat(head: file.head)
  let reader =
    try checkpointReaders.first { try $0.recognizes(file) } ?? checkpointReaders.first { $0.claims(file, as: foreign) }
  guard let reader else {
    throw CheckpointError.notACheckpoint(
      path: file.path, reason: foreign?.refusal ?? "is neither a safetensors nor an HDF5 file")
  }
  return try reader.open(file)
}

/// Finds the weights of a model folder and opens them.
private func openModelFolder(_ folder: ModelFolder) throws -> any DenseCheckpoint {
  let names = try folder.names().filter { !$0.hasPrefix(".") }
  func notACheckpoint(_ reason: String) -> CheckpointError { .notACheckpoint(path: folder.path, reason: reason) }
  if names.contains("manifest.json"), isMPOManifest(at: folder.path(of: "manifest.json")) {
    throw notACheckpoint("is an MPO checkpoint; use 'mpo inspect' to look at it, 'mpo restore' to make it dense")
  }
  let places = checkpointReaders.flatMap { $0.places }
  for place in places {
    let found: [String]
    switch place {
    case .file(let name): found = names.filter { $0 == name }
    case .only(let endings, let remedy):
      found = names.filter { name in endings.contains { name.hasSuffix($0) } }
      guard found.count <= 1 else {
        let listed = found.prefix(4).map { "'\(escaped($0))'" }.joined(separator: ", ")
        throw notACheckpoint("holds several models (\(listed)\(found.count > 4 ? ", …" : "")); \(remedy)")
      }
    }
    guard let name = found.first else { continue }
    return try open(
      CheckpointFile(
        path: folder.checkedPath(of: name, namedBy: folder.path), givenPath: folder.path, folder: folder))
  }
  if let pickle = names.first(where: { name in [".bin", ".pt", ".pth", ".ckpt"].contains { name.hasSuffix($0) } }) {
    throw notACheckpoint(
      "holds its weights as a pickle ('\(escaped(pickle))') only; \(ForeignFormat.pickleRemedy)")
  }
  throw notACheckpoint(
    "is a folder without a model: no \(places.map(\.text).joined(separator: ", ")) in it")
}
