import Files

/// Opens whatever dense checkpoint is at `path`:
///
/// - a safetensors file, an HDF5 file or a Keras archive, told apart by their content;
/// - the index of a sharded model (`*.safetensors.index.json`);
/// - a model folder with, in this order, `model.safetensors`, `model.safetensors.index.json`, the only other index,
///   the only `*.safetensors`, `tf_model.h5`, `model.h5`, the only `*.h5`, `*.hdf5` or `*.keras`. The other files of
///   the folder are then the checkpoint's `companions`.
///
/// A folder that says to be a pipeline is opened with the weights of all its subfolders, whose tensors have the subfolder's
/// path in front of their names: one of diffusers (`model_index.json`), and another (`modules.json`) that has no weights
/// itself. A variant of a component (`….fp16.safetensors`) counts only where the plain one is missing.
///
/// - Parameters:
///   - path: The file or folder to open.
///   - followingLinks: Whether links may lead out of a model folder; else only into the blobs of a Hugging Face cache.
/// - Throws: `CheckpointError`, which says what was found instead and what to do, and `FileError`.
public func openDenseCheckpoint(at path: String, followingLinks: Bool = false) throws -> any DenseCheckpoint {
  guard let status = try FileStatus(at: path) else { throw FileError.missing(path: path) }
  switch status.kind {
  case .folder: return try openModelFolder(ModelFolder(path: path, followingLinks: followingLinks))
  case .file:
    let folder = try ModelFolder(path: parentFolder(of: path), followingLinks: followingLinks)
    let checkpoint = try open(CheckpointFile(path: path, givenPath: path, folder: folder))
    let name = pathComponents(of: path).last ?? path
    guard checkpoint.components.isEmpty, let notice = shardNotice(name) else { return checkpoint }
    return try FolderCheckpoint(
      path: path, folder: nil, components: [CheckpointComponent(file: name, checkpoint: checkpoint)], companions: [],
      notices: [notice])
  default:
    throw CheckpointError.notACheckpoint(
      path: path, reason: "is \(status.kind.rawValue); a checkpoint is a regular file or a folder")
  }
}

/// What is to be said of a file that is one shard of several by its name; nil for others.
private func shardNotice(_ name: String) -> String? {
  guard WeightsName.isShard(name) else { return nil }
  let index = name.hasSuffix(".h5") ? "*.weights.json" : "*.safetensors.index.json"
  return
    "'\(escaped(name))' is, by its name, one of several shards and holds only part of a model; pass the index of the "
    + "shards (\(index)), which lies beside them"
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
  func notACheckpoint(_ reason: String) -> CheckpointError { .notACheckpoint(path: folder.path, reason: reason) }
  let names = try folder.names()
  if names.contains("manifest.json"), isMPOManifest(at: folder.path(of: "manifest.json")) {
    throw notACheckpoint("is an MPO checkpoint; use 'mpo inspect' to look at it, 'mpo restore' to make it dense")
  }
  var components: [CheckpointComponent] = []
  var opened: [String] = []
  var notices: [String] = []
  func add(_ file: String, prefix: String) throws {
    let checkpoint = try open(
      CheckpointFile(
        path: folder.checkedPath(of: file, namedBy: folder.path), givenPath: folder.path,
        folder: folder))
    opened.append(file)
    notices += checkpoint.notices
    if checkpoint.components.isEmpty, let notice = shardNotice(pathComponents(of: file).last ?? file) {
      notices.append(notice)
    }
    if checkpoint.components.isEmpty {
      components.append(CheckpointComponent(file: file, prefix: prefix, checkpoint: checkpoint))
    } else {
      components += checkpoint.components.map {
        CheckpointComponent(file: prefix + $0.file, prefix: prefix + $0.prefix, checkpoint: $0.checkpoint)
      }
    }
  }
  // What stands beside the components of diffusers is another copy of them.
  let isPipeline = names.contains(ModelFolder.diffusersName)
  if !isPipeline, let file = try weights(in: folder.path, names) {
    try add(file, prefix: "")
  } else {
    let subfolders = try folder.subfolders()
    let found = try subfolders.compactMap { subfolder -> (folder: String, file: String)? in
      let path = folder.path(of: subfolder)
      do {
        return try weights(in: path, listFolder(at: path), isComponent: true).map { (subfolder, $0) }
      } catch let error as CheckpointError {
        notices.append("\(error); it is copied unchanged")
        return nil
      }
    }
    if !found.isEmpty, names.contains(where: { ModelFolder.pipelineNames.contains($0) }) {
      for (subfolder, file) in found { try add(subfolder + "/" + file, prefix: subfolder + "/") }
    } else if !found.isEmpty {
      throw notACheckpoint(
        "holds no model, but its subfolders do: \(listed(found.map { "'\(escaped($0.folder))'" })); pass one of "
          + "them")
    } else if isPipeline, let file = try weights(in: folder.path, names) {
      try add(file, prefix: "")
    }
  }
  guard !components.isEmpty else {
    if let pickle = names.first(where: WeightsName.isPickle) {
      throw notACheckpoint(
        "holds its weights as a pickle ('\(escaped(pickle))') only; \(ForeignFormat.pickleRemedy)")
    }
    if let other = names.first(where: WeightsName.isWholeModel) {
      let path = folder.path(of: other)
      let isFile = try FileStatus(at: path)?.kind == .file
      let foreign = try isFile ? ForeignFormat(head: ForeignFormat.head(of: MappedFile(path: path))) : nil
      throw notACheckpoint(
        "holds its weights in another format only: '\(escaped(other))' "
          + (foreign?.refusal ?? "is neither a safetensors nor an HDF5 file; pass the original safetensors"))
    }
    if let notice = notices.first { throw notACheckpoint("is a folder without a readable model: \(notice)") }
    throw notACheckpoint(
      "is a folder without a model: no "
        + "\(checkpointReaders.flatMap { $0.places }.map(\.text).joined(separator: ", ")) in it")
  }
  let (companions, leftOut) = try folder.companions(of: components, openedBy: opened)
  return try FolderCheckpoint(
    path: folder.path, folder: folder.path, components: components, companions: companions, notices: notices + leftOut)
}

/// The file of the weights among the names of a folder, as the readers look for it; nil where there is none.
///
/// - Parameter isComponent: Whether it is a folder of a pipeline, where variants beside the weights are expected.
/// - Throws: `CheckpointError.notACheckpoint` for several.
private func weights(in path: String, _ names: [String], isComponent: Bool = false) throws -> String? {
  let names = names.filter { !$0.hasPrefix(".") }
  for place in checkpointReaders.flatMap({ $0.places }) {
    let found: [String]
    switch place {
    case .file(let name): found = names.filter { $0 == name }
    case .only(_, let isNamed, let remedy):
      found = isComponent ? WeightsName.withoutVariants(names.filter(isNamed)) : names.filter(isNamed)
      guard found.count <= 1 else {
        let files = listed(found.map { "'\(escaped($0))'" }, limit: 4)
        throw CheckpointError.notACheckpoint(
          path: path,
          reason: found.allSatisfy(WeightsName.isShard) && found[0].hasSuffix(".h5")
            ? "holds shards of Keras weights (\(files)) without their index (*.weights.json); add it, as save_weights "
              + "wrote it beside them"
            : "holds several models (\(files)); \(remedy)")
      }
    }
    if let name = found.first { return name }
  }
  return nil
}
