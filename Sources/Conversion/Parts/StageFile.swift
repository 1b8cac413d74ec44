import Checkpoints
import FoundationEssentials
import Recipes
import Squeezing

/// A file between two stages of the conversion: JSON with the name and version of its format beside the content.
public enum StageFile {
  /// The version that is written and read.
  public static let version = 2

  /// What the stage `profile` writes.
  public struct Profile: Sendable, Codable {
    /// What `format` says.
    public static let formatName = "mpo-profile"
    /// Always `formatName`.
    public let format: String
    /// The version of the format.
    public let version: Int
    /// Path of the checkpoint, as it was given.
    public let source: String
    /// The part of the matrices that it is of; nil for all of them.
    public let part: SourceNetwork.Part?
    /// What the profile was made for; the stage `plan` adds what it does not say yet.
    public let recipe: ConversionRecipe
    /// The coarsest dtype in half precision that matrices have; nil where none is in half precision.
    public let sourceDType: DType?
    /// The profiles of the matrices.
    public let network: NetworkProfile

    /// The file of a profile of the checkpoint at the path `source`.
    public init(
      source: String, part: SourceNetwork.Part?, recipe: ConversionRecipe, sourceDType: DType? = nil,
      network: NetworkProfile
    ) {
      format = Self.formatName
      version = StageFile.version
      self.source = source
      self.part = part
      self.recipe = recipe
      self.sourceDType = sourceDType
      self.network = network
    }

    enum CodingKeys: String, CodingKey {
      case format, version, source, part, recipe, network
      case sourceDType = "source_dtype"
    }
  }

  /// What the stage `plan` writes.
  public struct Plan: Sendable, Codable {
    /// What `format` says.
    public static let formatName = "mpo-plan"
    /// Always `formatName`.
    public let format: String
    /// The version of the format.
    public let version: Int
    /// Everything that decides the conversion.
    public let recipe: ConversionRecipe
    /// Which bond goes where.
    public let plan: SqueezePlan

    /// The file of a plan by a recipe.
    public init(_ plan: SqueezePlan, recipe: ConversionRecipe) {
      format = Self.formatName
      version = StageFile.version
      self.recipe = recipe
      self.plan = plan
    }
  }

  private struct Head: Codable {
    let format: String
    let version: Int
  }

  /// The name of the format that a file says it has; nil for what is no file of a stage.
  public static func formatName(of bytes: [UInt8]) -> String? {
    guard bytes.first == UInt8(ascii: "{"), let head = try? JSONDecoder().decode(Head.self, from: Data(bytes)) else {
      return nil
    }
    return [Profile.formatName, Plan.formatName].first { $0 == head.format }
  }

  /// As a file's content.
  /// - Throws: `EncodingError` for numbers that JSON does not have.
  public static func encode<Content: Encodable>(_ content: Content) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return Array(try encoder.encode(content)) + [UInt8(ascii: "\n")]
  }

  /// - Throws: `ConversionError.stageFile` for what is not such a file.
  public static func decode<Content: Decodable>(
    _ bytes: [UInt8], as type: Content.Type, format: String, path: String
  ) throws -> Content {
    let decoder = JSONDecoder()
    guard let head = try? decoder.decode(Head.self, from: Data(bytes)), head.format == format else {
      let stage = format == Profile.formatName ? "mpo profile" : "mpo plan"
      throw ConversionError.stageFile(path: path, reason: "is not what '\(stage)' writes; make it with that command")
    }
    guard head.version == Self.version else {
      throw ConversionError.stageFile(
        path: path,
        reason: head.version < Self.version
          ? "has version \(head.version), of an unreleased mpo; make it again"
          : "has version \(head.version); this mpo reads version \(Self.version): update it")
    }
    do {
      return try decoder.decode(Content.self, from: Data(bytes))
    } catch {
      throw ConversionError.stageFile(path: path, reason: "is damaged; make it again")
    }
  }

  /// Joins the profiles of the parts of one network.
  ///
  /// - Returns: the profile of the whole, no part.
  /// - Throws: `ConversionError.stageFile` when they are of different networks, or not all parts are there, and
  ///   `RecipeDifference` when they were made by different recipes.
  public static func merge(_ profiles: [(path: String, profile: Profile)]) throws -> Profile {
    guard let first = profiles.first else {
      throw ConversionError.stageFile(path: "", reason: "no profile is given")
    }
    func invalid(_ path: String, _ reason: String) -> ConversionError { .stageFile(path: path, reason: reason) }
    let count = first.profile.part?.count ?? 1
    var seen: Set<Int> = []
    for (path, profile) in profiles {
      guard profile.network.parameters == first.profile.network.parameters,
        profile.network.tiedParameters == first.profile.network.tiedParameters,
        profile.sourceDType == first.profile.sourceDType, (profile.part?.count ?? 1) == count
      else {
        throw invalid(
          path,
          "is of another model or of another division into parts than \(first.path); pass the parts of one profile")
      }
      if let difference = profile.recipe.difference(from: first.profile.recipe, path: path, otherPath: first.path) {
        throw difference
      }
      guard seen.insert(profile.part?.index ?? 1).inserted else {
        throw invalid(
          path, "is part \(profile.part?.index ?? 1) of \(count), which was given already; pass each part once")
      }
    }
    if let missing = (1...count).first(where: { !seen.contains($0) }) {
      throw invalid(first.path, "is one of \(count) parts, and part \(missing) is not given; pass all of them")
    }
    let layers = profiles.flatMap(\.profile.network.layers).sorted { TensorName($0.name) < TensorName($1.name) }
    if let twice = zip(layers, layers.dropFirst()).first(where: { TensorName($0.name) == TensorName($1.name) }) {
      throw invalid(first.path, "profiles '\(twice.0.name)', as another part does; pass each part once")
    }
    return Profile(
      source: first.profile.source, part: nil, recipe: first.profile.recipe, sourceDType: first.profile.sourceDType,
      network: NetworkProfile(
        parameters: first.profile.network.parameters, tiedParameters: first.profile.network.tiedParameters,
        basisParameters: first.profile.network.basisParameters, layers: layers,
        links: first.profile.network.links.map { _ in
          profiles.flatMap { $0.profile.network.links ?? [] }.sorted { TensorName($0.name) < TensorName($1.name) }
        },
        centres: first.profile.network.centres.map { _ in
          profiles.flatMap { $0.profile.network.centres ?? [] }.sorted { TensorName($0.name) < TensorName($1.name) }
            .reduce(into: []) { if $0.last != $1 { $0.append($1) } }
        },
        bytes: first.profile.network.bytes, tiedBytes: first.profile.network.tiedBytes))
  }
}
