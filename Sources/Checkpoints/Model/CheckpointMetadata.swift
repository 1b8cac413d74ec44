/// Text that belongs to a whole checkpoint, by name: `__metadata__` of safetensors, attributes of HDF5's root group.
///
/// Names are equal when their bytes are, which a dictionary of strings does not see: `"é"` may be written as one character
/// and as two.
///
/// ```swift
/// let metadata: CheckpointMetadata = ["format": "pt"]
/// metadata["format"]  // "pt"
/// ```
public struct CheckpointMetadata: Sendable, Hashable, ExpressibleByDictionaryLiteral {
  private var texts: [TensorName: String] = [:]

  /// Texts by name, where no two names are canonically equivalent.
  public init(_ texts: [String: String]) { for (name, text) in texts { self[name] = text } }

  /// Of a name that stands twice the last text.
  public init(dictionaryLiteral texts: (String, String)...) { for (name, text) in texts { self[name] = text } }

  /// Whether there is no text.
  public var isEmpty: Bool { texts.isEmpty }

  /// The text of that name; nil where there is none.
  public subscript(name: String) -> String? {
    get { texts[TensorName(name)] }
    set { texts[TensorName(name)] = newValue }
  }

  /// In the order of the names' bytes.
  public var sorted: [(name: String, text: String)] {
    texts.sorted { $0.key < $1.key }.map { ($0.key.text, $0.value) }
  }

  /// Adds what another has besides.
  public mutating func fill(from other: CheckpointMetadata) { texts.merge(other.texts) { own, _ in own } }

  /// Texts are equal when their bytes are, too.
  public static func == (one: CheckpointMetadata, other: CheckpointMetadata) -> Bool {
    one.texts.count == other.texts.count
      && one.texts.allSatisfy { name, text in other.texts[name].map { TensorName($0) == TensorName(text) } ?? false }
  }

  public func hash(into hasher: inout Hasher) { hasher.combine(Set(texts.keys)) }
}

extension CheckpointMetadata: Codable {
  private struct Name: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }

    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  /// From an object, or an array of pairs.
  public init(from decoder: any Decoder) throws {
    self.init()
    if var pairs = try? decoder.unkeyedContainer() {
      while !pairs.isAtEnd {
        let pair = try pairs.decode([String].self)
        guard pair.count == 2, self[pair[0]] == nil else {
          throw DecodingError.dataCorruptedError(
            in: pairs, debugDescription: "the metadata is not a list of pairs of strings")
        }
        self[pair[0]] = pair[1]
      }
      return
    }
    let object = try decoder.container(keyedBy: Name.self)
    for name in object.allKeys { self[name.stringValue] = try object.decode(String.self, forKey: name) }
  }

  /// As an object of texts; as an array of pairs `[name, text]` where names are canonically equivalent, which encoders of
  /// JSON take for one.
  public func encode(to encoder: any Encoder) throws {
    if Set(texts.keys.map(\.text)).count == texts.count {
      var object = encoder.container(keyedBy: Name.self)
      for (name, text) in sorted { try object.encode(text, forKey: Name(stringValue: name)) }
    } else {
      var pairs = encoder.unkeyedContainer()
      for (name, text) in sorted { try pairs.encode([name, text]) }
    }
  }
}
