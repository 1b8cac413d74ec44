/// Opens an HDF5 file, or a Keras archive that holds one, as a checkpoint.
///
/// - Parameters:
///   - file: The file itself.
///   - path: The path that the user gave: the file, or the model folder it was found in.
///   - folder: The model folder, when that is what the user gave.
///   - companions: The files beside the weights.
func openHDF5(at file: String, path: String, folder: String?, companions: [String]) throws -> any DenseCheckpoint {
  throw CheckpointError.unsupported(file: file, tensor: nil, reason: "HDF5 checkpoints can't be read yet")
}
