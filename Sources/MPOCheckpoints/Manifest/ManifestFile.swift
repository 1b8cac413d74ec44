import Checkpoints
import Crypto
import Files
import FoundationEssentials

/// Reading and writing of `manifest.json`, with the digest of the file inside itself.
enum ManifestFile {
  static let blankDigest = String(repeating: "0", count: 64)
  /// Far above the manifest of any model (about two kilobytes a tensor).
  static let maximumByteCount = 256 << 20

  /// The manifest as the bytes of its file, its digest filled in.
  static func encode(_ manifest: CheckpointManifest) throws -> Data {
    var manifest = manifest
    manifest.sha256 = blankDigest
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    var data = try encoder.encode(manifest)
    // A line break is in no string of JSON, so this is the member at the top, whatever the names in the manifest are.
    let member = data.range(of: Data("\n  \"\(CheckpointManifest.CodingKeys.sha256.rawValue)\" : \"".utf8))
    guard let start = member?.upperBound else { preconditionFailure("the manifest has no member for its digest") }
    let digest = hexadecimal(SHA256.hash(data: data))
    data.replaceSubrange(start..<start + digest.utf8.count, with: digest.utf8)
    return data
  }

  /// - Throws: `MPOCheckpointError` for what is not a manifest of a version this reader knows, or was changed.
  static func decode(_ data: Data, path: String) throws -> CheckpointManifest {
    /// The members that say whether the rest can be understood.
    struct Head: Codable {
      let format: String
      let version: String
      let sha256: String

      enum CodingKeys: String, CodingKey {
        case format, version
        case sha256 = "manifest_sha256"
      }
    }
    let decoder = JSONDecoder()
    do {
      let head = try decoder.decode(Head.self, from: data)
      guard head.format == CheckpointManifest.formatName else {
        throw MPOCheckpointError.manifest(path: path, reason: "is not the manifest of an MPO checkpoint")
      }
      guard head.version.split(separator: ".").first == CheckpointManifest.currentVersion.split(separator: ".").first
      else {
        throw MPOCheckpointError.manifest(
          path: path,
          reason: head.version.hasPrefix("1.")
            ? "was made by an unreleased version of mpo (format \(escaped(head.version))); convert the model again"
            : "has version \(escaped(head.version)); this mpo reads version \(CheckpointManifest.currentVersion): update it"
        )
      }
      guard digest(of: data, recorded: head.sha256) == head.sha256 else {
        throw MPOCheckpointError.manifest(
          path: path, reason: "was changed after it was written (its SHA-256 differs); convert the model again")
      }
      return try decoder.decode(CheckpointManifest.self, from: data)
    } catch let error as DecodingError {
      throw MPOCheckpointError.manifest(path: path, reason: reason(of: error))
    }
  }

  /// The SHA-256 of the bytes with the recorded digits replaced by zeros; nil unless they are there exactly once.
  private static func digest(of data: Data, recorded: String) -> String? {
    // A shorter text could be in so many places that their list would not fit the memory.
    guard recorded.utf8.count == 64 else { return nil }
    var bytes = Array(data)
    let places = bytes.ranges(of: Array(recorded.utf8))
    guard places.count == 1 else { return nil }
    bytes.replaceSubrange(places[0], with: Array(blankDigest.utf8))
    return hexadecimal(SHA256.hash(data: bytes))
  }

  private static func reason(of error: DecodingError) -> String {
    func at(_ path: [any CodingKey]) -> String {
      let text = path.map { $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)" }.joined()
      return escaped(String(text.drop { $0 == "." }))
    }
    switch error {
    case .keyNotFound(let key, let context): return "has no member '\(at(context.codingPath + [key]))'"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      return "has a member '\(at(context.codingPath))' of the wrong type"
    case .dataCorrupted(let context):
      if context.codingPath.isEmpty {
        let isText = context.debugDescription.hasPrefix("The given data was not valid JSON")
        return isText ? "is not valid JSON" : "has an invalid member: \(escaped(context.debugDescription))"
      }
      return "has an invalid member '\(at(context.codingPath))': \(escaped(context.debugDescription))"
    @unknown default: return "can't be understood"
    }
  }
}
