/// Opens Keras archives, whose weights are an HDF5 file, or several with an index.
enum KerasReader: CheckpointReader {
  static let format = CheckpointFormat.hdf5

  /// A zip archive whose first entry belongs to a Keras model.
  static func recognizes(_ file: CheckpointFile) -> Bool {
    file.starts(with: ZipSignature.bytes)
      && ["metadata.json", "config.json", KerasArchive.weightsName, KerasArchive.indexName].contains(
        ZipSignature.firstName(file.head))
  }

  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool {
    foreign == .zip && file.path.hasSuffix(".keras")
  }

  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint { try HDF5Reader.open(file) }
}
