/// Opens whatever dense checkpoint is at `path`:
///
/// - a safetensors file, an HDF5 file or a Keras archive, told apart by their content;
/// - the index of a sharded model (`*.safetensors.index.json`);
/// - a model folder with, in this order, `model.safetensors`, `model.safetensors.index.json`, the only other index,
///   the only `*.safetensors`, `tf_model.h5`, `model.h5`, the only `*.h5`, `*.hdf5` or `*.keras`. The other files of
///   the folder are then the checkpoint's `companions`.
///
/// - Throws: `CheckpointError`, which says what was found instead and what to do.
public func openDenseCheckpoint(at path: String) throws -> any DenseCheckpoint {
  guard let status = try FileStatus(at: path) else {
    throw CheckpointError.notACheckpoint(path: path, reason: "no such file or folder")
  }
  switch status.kind {
  case .folder: return try openModelFolder(ModelFolder(path: path))
  case .file: return try openFile(at: path, path: path, folder: nil)
  default:
    throw CheckpointError.notACheckpoint(
      path: path, reason: "is \(status.kind.rawValue); a checkpoint is a regular file or a folder")
  }
}

/// Opens one file by its content.
private func openFile(at file: String, path: String, folder: ModelFolder?) throws -> any DenseCheckpoint {
  func notACheckpoint(_ reason: String) -> CheckpointError { .notACheckpoint(path: file, reason: reason) }
  switch try FileSignature(ofFileAt: file) {
  case .safetensors: return try openSafetensors(at: file, folder)
  case .hdf5, .kerasArchive:
    return try openHDF5(at: file, path: path, folder: folder?.path, companions: folder?.companions() ?? [])
  case .json where file.hasSuffix(".index.json"):
    return try ShardedSafetensors(indexPath: file, path: path, openedAs: folder)
  case .json where file.hasSuffix(".safetensors"), .unknown where file.hasSuffix(".safetensors"):
    return try openSafetensors(at: file, folder)
  case .empty: throw notACheckpoint("the file is empty")
  case .pickle: throw notACheckpoint("is a pickle as torch.save writes it; \(convertRemedy)")
  case .zip where file.hasSuffix(".keras"):
    return try openHDF5(at: file, path: path, folder: folder?.path, companions: folder?.companions() ?? [])
  case .zip: throw notACheckpoint("is a zip archive but no Keras model")
  case .json:
    throw notACheckpoint("is a JSON file; pass a .safetensors or .h5 file, a *.safetensors.index.json or a folder")
  case .gguf: throw notACheckpoint("is a GGUF file, which holds quantised weights; pass the original safetensors")
  case .numpy: throw notACheckpoint("is a NumPy array; save it with safetensors.numpy.save_file first")
  case .lfsPointer: throw notACheckpoint("is a Git LFS pointer and not the file itself; run 'git lfs pull'")
  case .unknown: throw notACheckpoint("is neither a safetensors nor an HDF5 file")
  }
}

private func openSafetensors(at file: String, _ folder: ModelFolder?) throws -> SafetensorsFile {
  try SafetensorsFile(path: file, folder: folder?.path, companions: folder?.companions() ?? [])
}

/// Finds the weights of a model folder and opens them.
private func openModelFolder(_ folder: ModelFolder) throws -> any DenseCheckpoint {
  let names = try folder.names().filter { !$0.hasPrefix(".") }
  func notACheckpoint(_ reason: String) -> CheckpointError { .notACheckpoint(path: folder.path, reason: reason) }
  if names.contains("manifest.json"), isMPOManifest(at: folder.path(of: "manifest.json")) {
    throw notACheckpoint("is an MPO checkpoint; use 'mpo inspect' to look at it, 'mpo restore' to make it dense")
  }
  func open(_ name: String) throws -> any DenseCheckpoint {
    try openFile(at: folder.checkedPath(of: name, namedBy: folder.path), path: folder.path, folder: folder)
  }
  /// The one name with one of the endings; several are an error.
  func only(_ endings: [String], _ remedy: String) throws -> String? {
    let found = names.filter { name in endings.contains { name.hasSuffix($0) } }
    guard found.count > 1 else { return found.first }
    let listed = found.prefix(4).map { "'\(escaped($0))'" }.joined(separator: ", ")
    throw notACheckpoint("holds several models (\(listed)\(found.count > 4 ? ", …" : "")); \(remedy)")
  }

  let passOne = "pass the path of the one to open"
  for name in ["model.safetensors", "model.safetensors.index.json"] where names.contains(name) {
    return try open(name)
  }
  if let name = try only([".safetensors.index.json"], passOne) { return try open(name) }
  if let name = try only([".safetensors"], passOne + ", or add their *.safetensors.index.json") {
    return try open(name)
  }
  for name in ["tf_model.h5", "model.h5"] where names.contains(name) { return try open(name) }
  if let name = try only([".h5", ".hdf5", ".keras"], passOne) { return try open(name) }
  if let pickle = names.first(where: { name in [".bin", ".pt", ".pth", ".ckpt"].contains { name.hasSuffix($0) } }) {
    throw notACheckpoint("holds its weights as a pickle ('\(escaped(pickle))') only; \(convertRemedy)")
  }
  throw notACheckpoint(
    "is a folder without a model: no model.safetensors, model.safetensors.index.json, other *.safetensors, "
      + "tf_model.h5, *.h5, *.hdf5 or *.keras in it")
}

private let convertRemedy =
  "convert it to safetensors first, with save_pretrained(…, safe_serialization=True) or safetensors.torch.save_model"

/// Whether a file is the manifest of an MPO checkpoint: a JSON object whose `format` is a name that starts with `mpo`.
package func isMPOManifest(at path: String) -> Bool {
  var isManifest = false
  do {
    let file = try MappedFile(path: path)
    guard file.byteCount <= SafetensorsFile.maximumHeaderLength else { return false }
    try file.withBytes(in: 0..<file.byteCount) { bytes in
      try JSONReader.read(bytes) { reader in
        try reader.readObject { reader, name in
          if name == "format", try reader.nextKind() == .string {
            isManifest = try reader.readString().hasPrefix("mpo")
          } else {
            try reader.skipValue()
          }
        }
      }
    }
  } catch {
    // What is not valid JSON to its end may still have said what it is: a damaged manifest.
    return isManifest
  }
  return isManifest
}
