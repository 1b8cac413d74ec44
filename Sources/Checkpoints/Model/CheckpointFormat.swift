import Files

/// The file format of a dense checkpoint, under the name that manifests use.
public struct CheckpointFormat: RawRepresentable, Sendable, Hashable {
  public let rawValue: String

  /// Any name: one that no reader has is of a format that is not known here.
  public init(rawValue: String) { self.rawValue = rawValue }
}

extension CheckpointFormat: Codable {
  /// - Throws: `DecodingError` for a format that no reader has.
  public init(from decoder: any Decoder) throws {
    self.init(rawValue: try decoder.singleValueContainer().decode(String.self))
    guard checkpointReaders.contains(where: { $0.format == self }) else {
      throw DecodingError.dataCorrupted(
        .init(
          codingPath: decoder.codingPath, debugDescription: "'\(escaped(rawValue))' is not a known checkpoint format"))
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(rawValue)
  }
}
