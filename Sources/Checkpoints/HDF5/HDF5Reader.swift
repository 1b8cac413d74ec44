extension CheckpointFormat {
  /// An HDF5 file or a Keras archive.
  public static let hdf5 = CheckpointFormat(rawValue: "hdf5")
}

/// Opens HDF5 files.
enum HDF5Reader: CheckpointReader {
  static let format = CheckpointFormat.hdf5

  // Keras archives are among them: a folder with one of each holds two models.
  static let places: [ModelFolder.Place] = [
    .file("tf_model.h5"), .file("model.h5"),
    .only("*.h5, *.hdf5, *.keras") { name in [".h5", ".hdf5", ".keras"].contains { name.hasSuffix($0) } },
  ]

  private static let signature: [UInt8] = [0x89, 0x48, 0x44, 0x46, 0x0D, 0x0A, 0x1A, 0x0A]

  /// The superblock is at the beginning, or behind a user block, at 512 bytes or a power of two times that.
  static func recognizes(_ file: CheckpointFile) throws -> Bool {
    if file.starts(with: signature) { return true }
    guard ForeignFormat(head: file.head) == nil else { return false }
    var offset = 512
    while offset <= file.contents.byteCount - 8 {
      if try file.contents.withBytes(in: offset..<offset + 8, { $0.elementsEqual(signature) }) { return true }
      offset *= 2
    }
    return false
  }

  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint {
    try HDF5Checkpoint(path: file.path)
  }
}
