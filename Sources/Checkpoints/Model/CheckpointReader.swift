import Files

/// The readers of all formats, in the order in which they look for their weights in a model folder. A new format is a
/// folder with its reader, and a line here.
let checkpointReaders: [any CheckpointReader.Type] = [
  SafetensorsReader.self,
  KerasShardsReader.self,
  HDF5Reader.self,
  KerasReader.self,
]

/// What knows a file format of dense checkpoints.
protocol CheckpointReader: SendableMetatype {
  static var format: CheckpointFormat { get }

  /// Where a model folder has weights of this format, best first.
  static var places: [ModelFolder.Place] { get }

  /// Whether the content of a file is of this format, by its first bytes or a signature elsewhere.
  static func recognizes(_ file: CheckpointFile) throws -> Bool

  /// Whether the name of a file that no reader recognizes says that it is of this format: it is opened then, and the
  /// reader says what is wrong with it.
  ///
  /// - Parameter foreign: What the content is instead, where that is known.
  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool

  /// Opens it and checks all that can be checked without reading elements.
  static func open(_ file: CheckpointFile) throws -> any DenseCheckpoint
}

extension CheckpointReader {
  static var places: [ModelFolder.Place] { [] }
  static func claims(_ file: CheckpointFile, as foreign: ForeignFormat?) -> Bool { false }
}

/// A file that may be a checkpoint.
struct CheckpointFile {
  let path: String
  /// What the user gave: the path of the file, or of the model folder it is in.
  let givenPath: String
  /// The folder it is in, or the model folder.
  let folder: ModelFolder?
  let contents: MappedFile
  /// The first bytes, at most 512.
  let head: [UInt8]

  init(path: String, givenPath: String, folder: ModelFolder? = nil) throws {
    self.path = path
    self.givenPath = givenPath
    self.folder = folder
    contents = try MappedFile(path: path)
    head = try ForeignFormat.head(of: contents)
  }

  func starts(with signature: some Sequence<UInt8>) -> Bool { head.starts(with: signature) }
}

extension ModelFolder {
  /// Where a model folder may have weights.
  enum Place: Sendable {
    /// In the file of this name.
    case file(String)
    /// In the only file with such a name; when there are several, the remedy is part of the error.
    case only(String, @Sendable (String) -> Bool, remedy: String = "pass the path of the one to open")

    var text: String {
      switch self {
      case .file(let name): name
      case .only(let text, _, _): text
      }
    }
  }
}
