import Checkpoints
import Files

/// `manifest.json` of an MPO checkpoint; the members are those of FORMAT.md.
public struct Manifest: Sendable, Equatable, Codable {
  public static let formatName = "mpo-checkpoint"
  public static let currentVersion = "1.0"
  public static let fileName = "manifest.json"

  public let format: String
  public let version: String
  public let generator: String
  /// Of the file with the digits of this member replaced by zeros; `ManifestFile` computes it.
  var sha256: String
  public let source: Source?
  public let shards: [FileFingerprint]
  public let companions: [FileFingerprint]
  /// How the conversion was asked for.
  public let options: [String: String]?
  public let totals: Totals
  /// Every tensor of the source, in its order; of a part of a conversion: its tensors.
  public let tensors: [TensorRecord]
  /// Which part of a conversion this is; nil for the whole of it.
  public let part: Part?

  /// A part of a conversion that was done in several.
  public struct Part: Sendable, Equatable, Codable {
    /// From 1.
    public let index: Int
    public let count: Int
    /// Tensors of the source.
    public let tensorCount: Int
    /// Where the tensors of the part are among those of the source, from 0, ascending.
    public let positions: [Int]

    enum CodingKeys: String, CodingKey {
      case index, count, positions
      case tensorCount = "tensor_count"
    }

    public init(index: Int, count: Int, tensorCount: Int, positions: [Int]) {
      self.index = index
      self.count = count
      self.tensorCount = tensorCount
      self.positions = positions
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
    public let format: CheckpointFormat
    public let files: [FileFingerprint]
    public let metadata: [String: String]
    /// The companion that holds everything of an HDF5 source but the elements of its tensors.
    public let skeleton: String?

    public init(
      format: CheckpointFormat, files: [FileFingerprint], metadata: [String: String], skeleton: String? = nil
    ) {
      self.format = format
      self.files = files
      self.metadata = metadata
      self.skeleton = skeleton
    }
  }

  /// Sums over the whole checkpoint.
  public struct Totals: Sendable, Equatable, Codable {
    /// Elements of all tensors of the source.
    public let parametersBefore: Int
    /// Elements of all entries, unpacked; scales of quantised cores are not counted.
    public let parametersStored: Int
    /// Elements of all floating-point entries but the central cores.
    public let parametersTrainable: Int
    public let bytesBefore: Int
    /// Bytes of all entries as they are stored.
    public let bytesStored: Int
    /// The same unpacked; nil where nothing is packed.
    public let bytesUnpacked: Int?
    /// `parametersStored / parametersBefore`.
    public let ratio: Double
    /// `√(Σ‖W−Ŵ‖² / Σ‖W‖²)` over the decomposed matrices; nil when one was not measured.
    public let relativeError: Double?

    enum CodingKeys: String, CodingKey {
      case ratio
      case parametersBefore = "parameters_before"
      case parametersStored = "parameters_stored"
      case parametersTrainable = "parameters_trainable"
      case bytesBefore = "bytes_before"
      case bytesStored = "bytes_stored"
      case bytesUnpacked = "bytes_unpacked"
      case relativeError = "relative_error"
    }

    /// Adds up the records.
    public init(_ tensors: [TensorRecord]) {
      parametersBefore = tensors.reduce(0) { $0 + $1.info.elementCount }
      parametersStored = tensors.reduce(0) { $0 + $1.parameterCount }
      parametersTrainable = tensors.reduce(0) { sum, tensor in
        tensor.dtype.isDecomposable
          ? sum + tensor.parameterCount - (tensor.mpo?.centralParameterCount ?? 0) : sum
      }
      bytesBefore = tensors.reduce(0) { $0 + $1.info.byteCount }
      bytesStored = tensors.reduce(0) { $0 + $1.storedBytes }
      bytesUnpacked =
        tensors.contains { !$0.packed.isEmpty }
        ? tensors.reduce(0) { sum, tensor in tensor.entries.reduce(sum) { $0 + $1.byteCount } } : nil
      ratio = Double(parametersStored) / Double(max(1, parametersBefore))
      var squaredError: Double? = 0
      var squaredNorm = 0.0
      for mpo in tensors.compactMap(\.mpo) {
        guard let norm = mpo.norm, let error = mpo.relativeError, let sum = squaredError else {
          squaredError = nil
          break
        }
        squaredError = sum + error * error * norm * norm
        squaredNorm += norm * norm
      }
      relativeError = squaredError.map { squaredNorm > 0 ? ($0 / squaredNorm).squareRoot() : 0 }
    }
  }

  public init(
    generator: String, source: Source?, shards: [FileFingerprint], companions: [FileFingerprint],
    options: [String: String]?, tensors: [TensorRecord], part: Part? = nil
  ) {
    format = Self.formatName
    version = Self.currentVersion
    self.generator = generator
    sha256 = ManifestFile.blankDigest
    self.source = source
    self.shards = shards
    self.companions = companions
    self.options = options
    totals = Totals(tensors)
    self.tensors = tensors
    self.part = part
  }

  enum CodingKeys: String, CodingKey {
    case format, version, generator, source, shards, companions, options, totals, tensors, part
    case sha256 = "manifest_sha256"
  }
}
