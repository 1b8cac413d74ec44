/// A mask M of zeros and ones over the matrices: `W ⊙ M` is decomposed, and what M keeps is what counts.
public struct MaskRule: Sendable, Hashable {
  /// Where the mask is from.
  public enum Source: Sendable, Hashable {
    /// The zeros of the matrices themselves, which are sparse already.
    case zeros
    /// A file, by its SHA-256: 64 lower-case hexadecimal digits.
    case file(sha256: String)
  }

  /// How errors are weighted, where there are no statistics.
  public enum Weights: String, Sendable, Hashable, Codable, CaseIterable {
    /// Each row and each column by how many of its elements are kept: the best factorisation is known in closed form. (LPAF,
    /// arXiv 2306.14152, weights one side so.)
    case sides
    /// Each element by whether it is kept: refined from there.
    case elements
  }

  /// Which weights are gone.
  public var source: Source
  /// How what is kept weighs.
  public var weights = Weights.sides

  /// A rule for a mask of this source.
  public init(source: Source, weights: Weights = .sides) { (self.source, self.weights) = (source, weights) }
}

extension MaskRule: Codable {
  enum CodingKeys: String, RecipeMember {
    case source, weights

    var allowed: String {
      switch self {
      case .source: "'zeros', or the SHA-256 of the mask file, 64 hexadecimal digits"
      case .weights: Weights.choices
      }
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let text = try container.decode(String.self, forKey: .source)
    if text == "zeros" {
      source = .zeros
    } else {
      let digits = text.lowercased()
      guard digits.utf8.count == 64, digits.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }) else {
        throw DecodingError.dataCorruptedError(forKey: .source, in: container, debugDescription: text)
      }
      source = .file(sha256: digits)
    }
    weights = try container.decode(.weights, default: weights)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    switch source {
    case .zeros: try container.encode("zeros", forKey: .source)
    case .file(let sha256): try container.encode(sha256, forKey: .source)
    }
    try container.encode(weights, forKey: .weights)
  }
}
