import Checkpoints
import Files
import Recipes

/// `manifest.json` of an MPO checkpoint; the members are those of FORMAT.md.
public struct CheckpointManifest: Sendable, Equatable, Codable {
  /// What `format` says.
  public static let formatName = "mpo-checkpoint"
  /// The version that is written.
  public static let currentVersion = "2.0"
  /// The name of the file in the folder of a checkpoint.
  public static let fileName = "manifest.json"

  /// Always `formatName`.
  public let format: String
  /// The version of the format; readers refuse another major version.
  public let version: String
  /// The program that wrote the checkpoint, and its version.
  public let generator: String
  /// Of the file with the digits of this member replaced by zeros; `ManifestFile` computes it.
  var sha256: String
  /// Where the tensors came from; nil where that is not known.
  public let source: Source?
  /// The files that hold the entries.
  public let shards: [FileFingerprint]
  /// The files that were carried over, the index of the shards and the skeletons.
  public let companions: [FileFingerprint]
  /// The recipe of the conversion; nil where there was none.
  public let conversion: ConversionRecipe?
  /// What a squeeze did since.
  public let squeeze: Squeeze?
  /// Sums over the whole checkpoint.
  public let totals: Totals
  /// Every tensor of the source, in its order; of a part of a conversion: its tensors.
  public let contents: CheckpointContents
  /// Which part of a conversion this is; nil for the whole of it.
  public let part: Part?

  /// A part of a conversion that was done in several.
  public struct Part: Sendable, Equatable, Codable {
    /// From 1.
    public let index: Int
    /// How many parts the conversion has.
    public let count: Int
    /// Tensors of the source.
    public let tensorCount: Int
    /// Where the tensors of the part are among those of the source, from 0, ascending.
    public let positions: [Int]
    /// Which files of the source the part has read whole; nil for all of them.
    public let files: Files?

    /// The files that a part has the checksums of, so that no file is read by every part.
    public struct Files: Sendable, Equatable, Codable {
      /// Of the source.
      public let count: Int
      /// Where those of `Source.files` are among them, from 0.
      public let positions: [Int]
      /// Of all files, the same in all parts: a digest of samples of their contents.
      public let sample: String

      /// The files at `positions` of `count`, and the digest of samples of all.
      public init(count: Int, positions: [Int], sample: String) {
        (self.count, self.positions, self.sample) = (count, positions, sample)
      }
    }

    enum CodingKeys: String, CodingKey {
      case index, count, positions, files
      case tensorCount = "tensor_count"
    }

    /// Part `index` of `count`, with the tensors at `positions` of `tensorCount`.
    public init(index: Int, count: Int, tensorCount: Int, positions: [Int], files: Files? = nil) {
      self.index = index
      self.count = count
      self.tensorCount = tensorCount
      self.positions = positions
      self.files = files
    }

    /// Whether the numbers can be those of a part with so many tensors.
    func isConsistent(tensors: Int) -> Bool {
      count >= 1 && (1...count).contains(index) && positions.count == tensors
        && zip(positions, positions.dropFirst()).allSatisfy { $0 < $1 } && (positions.first ?? 0) >= 0
        && (positions.last ?? -1) < tensorCount
    }
  }

  /// Where the tensors came from.
  public struct Source: Sendable, Equatable, Codable {
    /// The file format of the source.
    public let format: CheckpointFormat
    /// Name, size and SHA-256 of the files of its weights.
    public var files: [FileFingerprint]
    /// Its metadata, names and values.
    public let metadata: CheckpointMetadata
    /// The companion that holds everything of an HDF5 source but the elements of its tensors.
    public let skeleton: String?
    /// The weights of a model folder; nil for a source that is none.
    public let components: [Component]?

    /// A source of these files.
    public init(
      format: CheckpointFormat, files: [FileFingerprint], metadata: CheckpointMetadata, skeleton: String? = nil,
      components: [Component]? = nil
    ) {
      self.format = format
      self.files = files
      self.metadata = metadata
      self.skeleton = skeleton
      self.components = components
    }

    /// The skeletons of the source and of its components.
    public var skeletons: [String] {
      var seen: Set<TensorName> = []
      return ([skeleton] + (components ?? []).map(\.skeleton)).compactMap(\.self)
        .filter { seen.insert(TensorName($0)).inserted }
    }
  }

  /// Weights of a model folder: a run of the tensors of the source.
  public struct Component: Sendable, Equatable, Codable {
    /// The file of the weights, or the index of their shards, in the model folder.
    public let file: String
    /// What the names of its tensors have in front here, and not there.
    public let prefix: String
    /// The file format of the weights.
    public let format: CheckpointFormat
    /// How many tensors of the source are its own.
    public let tensorCount: Int
    /// The metadata of its weights, names and values.
    public let metadata: CheckpointMetadata
    /// The companion that holds everything of HDF5 weights but the elements; nil for other formats.
    public let skeleton: String?

    enum CodingKeys: String, CodingKey {
      case file, prefix, format, metadata, skeleton
      case tensorCount = "tensor_count"
    }

    /// A component whose weights are in a file of the model folder.
    public init(
      file: String, prefix: String, format: CheckpointFormat, tensorCount: Int, metadata: CheckpointMetadata,
      skeleton: String?
    ) {
      self.file = file
      self.prefix = prefix
      self.format = format
      self.tensorCount = tensorCount
      self.metadata = metadata
      self.skeleton = skeleton
    }
  }

  /// Sums over the whole checkpoint.
  public struct Totals: Sendable, Equatable, Codable {
    /// Elements of all tensors of the source but training state.
    public let parametersBefore: Int
    /// Values of all dense tensors but training state, and of cores, each once; neither scales nor pivots are counted.
    public let parametersStored: Int
    /// What lightweight fine-tuning trains: auxiliary cores, whole whatever their gauge, and dense floating-point tensors of
    /// fewer than two axes. Cores in integers of groups stay as they are.
    public let parametersTrainable: Int
    /// Elements of the tensors that are training state; nil where there are none.
    public let parametersOfTraining: Int?
    /// Bytes of the elements of all tensors of the source.
    public let bytesBefore: Int
    /// Bytes of all entries as they are stored.
    public let bytesStored: Int
    /// The same unpacked; nil where nothing is packed.
    public let bytesUnpacked: Int?
    /// `parametersStored / parametersBefore`.
    public let ratio: Double
    /// `√(Σ‖W−Ŵ‖² / Σ‖W‖²)` over the tensors made of operators; nil when one was not measured.
    public let relativeError: Double?

    enum CodingKeys: String, CodingKey {
      case ratio
      case parametersBefore = "parameters_before"
      case parametersStored = "parameters_stored"
      case parametersTrainable = "parameters_trainable"
      case parametersOfTraining = "parameters_training_state"
      case bytesBefore = "bytes_before"
      case bytesStored = "bytes_stored"
      case bytesUnpacked = "bytes_unpacked"
      case relativeError = "relative_error"
    }

    /// Adds up what the contents say.
    public init(_ contents: CheckpointContents) {
      let tensors = contents.tensors
      let model = tensors.filter { !$0.isTrainingState }
      let dense = tensors.compactMap(\.array)
      parametersBefore = model.reduce(0) { $0 + $1.info.elementCount }
      let denseCount = model.reduce(0) { $0 + ($1.array?.valueCount ?? 0) }
      parametersStored = contents.cores.reduce(denseCount) { $0 + $1.valueCount }
      let vectors = model.filter { $0.isDense && $0.dtype.isDecomposable && $0.shape.count < 2 }
      let vectorCount = vectors.reduce(0) { $0 + $1.info.elementCount }
      parametersTrainable = contents.cores.filter(\.isTrained).reduce(vectorCount) { $0 + $1.shape.reduce(1, *) }
      parametersOfTraining =
        model.count == tensors.count
        ? nil : tensors.reduce(0) { $0 + ($1.isTrainingState ? $1.info.elementCount : 0) }
      bytesBefore = tensors.reduce(0) { $0 + $1.info.byteCount }
      let arrays: [any StoredArray] = dense + contents.cores
      bytesStored = arrays.reduce(0) { $0 + $1.storedBytes }
      bytesUnpacked =
        contents.isPacked ? arrays.reduce(0) { sum, array in array.entries.reduce(sum) { $0 + $1.byteCount } } : nil
      ratio = Double(parametersStored) / Double(max(1, parametersBefore))
      let matrices = tensors.compactMap(\.blocks)
      relativeError = Self.joined(matrices.map { ($0.relativeError, $0.norm) })
    }

    /// `√(Σ error²‖W‖² / Σ‖W‖²)`; nil when an error or a norm is not known.
    private static func joined(_ errors: [(relative: Double?, norm: Double?)]) -> Double? {
      var squaredError = 0.0
      var squaredNorm = 0.0
      // Squares are to neither vanish nor overflow.
      let largest = errors.compactMap(\.norm).max() ?? 0
      let scale = largest == 0 || (1e-100...1e100).contains(largest) ? 1 : largest
      for (error, norm) in errors {
        guard let error, let norm = norm.map({ $0 / scale }) else { return nil }
        squaredError += error * error * norm * norm
        squaredNorm += norm * norm
      }
      return squaredNorm > 0 ? (squaredError / squaredNorm).squareRoot() : 0
    }
  }

  /// What `mpo squeeze` did.
  public struct Squeeze: Sendable, Equatable, Codable {
    /// How far the score was allowed to go, for people.
    public let limit: String
    /// The score of the model to begin with.
    public let baselineScore: Double
    /// The score of this one.
    public let score: Double
    /// Rounds that were tried.
    public let rounds: Int

    enum CodingKeys: String, CodingKey {
      case limit, score, rounds
      case baselineScore = "baseline_score"
    }

    /// What a squeeze of so many rounds came to.
    public init(limit: String, baselineScore: Double, score: Double, rounds: Int) {
      self.limit = limit
      self.baselineScore = baselineScore
      self.score = score
      self.rounds = rounds
    }
  }

  /// A manifest of the current version; the totals are added up from the contents.
  public init(
    generator: String, source: Source?, shards: [FileFingerprint], companions: [FileFingerprint],
    conversion: ConversionRecipe?, squeeze: Squeeze? = nil, contents: CheckpointContents, part: Part? = nil
  ) {
    format = Self.formatName
    version = Self.currentVersion
    self.generator = generator
    sha256 = ManifestFile.blankDigest
    self.source = source
    self.shards = shards
    self.companions = companions
    self.conversion = conversion
    self.squeeze = squeeze
    totals = Totals(contents)
    self.contents = contents
    self.part = part
  }

  enum CodingKeys: String, CodingKey {
    case format, version, generator, source, shards, companions, conversion, squeeze, totals, tensors, operators, cores
    case part
    case sha256 = "manifest_sha256"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    format = try container.decode(String.self, forKey: .format)
    version = try container.decode(String.self, forKey: .version)
    generator = try container.decode(String.self, forKey: .generator)
    sha256 = try container.decode(String.self, forKey: .sha256)
    source = try container.decodeIfPresent(Source.self, forKey: .source)
    shards = try container.decode([FileFingerprint].self, forKey: .shards)
    companions = try container.decode([FileFingerprint].self, forKey: .companions)
    conversion = try container.decodeIfPresent(ConversionRecipe.self, forKey: .conversion)
    squeeze = try container.decodeIfPresent(Squeeze.self, forKey: .squeeze)
    totals = try container.decode(Totals.self, forKey: .totals)
    contents = CheckpointContents(
      tensors: try container.decode([TensorRecord].self, forKey: .tensors),
      operators: try container.decode([OperatorRecord].self, forKey: .operators),
      cores: try container.decode([CoreRecord].self, forKey: .cores))
    part = try container.decodeIfPresent(Part.self, forKey: .part)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(format, forKey: .format)
    try container.encode(version, forKey: .version)
    try container.encode(generator, forKey: .generator)
    try container.encode(sha256, forKey: .sha256)
    try container.encodeIfPresent(source, forKey: .source)
    try container.encode(shards, forKey: .shards)
    try container.encode(companions, forKey: .companions)
    try container.encodeIfPresent(conversion, forKey: .conversion)
    try container.encodeIfPresent(squeeze, forKey: .squeeze)
    try container.encode(totals, forKey: .totals)
    try container.encode(contents.tensors, forKey: .tensors)
    try container.encode(contents.operators, forKey: .operators)
    try container.encode(contents.cores, forKey: .cores)
    try container.encodeIfPresent(part, forKey: .part)
  }
}
