/// The profiles of all matrices of a network that may be decomposed, and the parameters that stay as they are.
public struct NetworkProfile: Sendable, Hashable, Codable {
  /// Elements of all tensors of the checkpoint.
  public let parameters: Int
  /// Elements of the tensors that are the same bytes as another one, and are not stored again.
  public let tiedParameters: Int
  /// Numbers of the bases that the chains of the network are computed in, each basis once: at most so many are stored
  /// beside the chains, fewer where a matrix stays dense. nil for none.
  public var basisParameters: Int?
  /// The matrices that may be decomposed, in the order of the checkpoint.
  public var layers: [LayerProfile]
  /// Of the matrices that may be ranges of one operator; nil for none.
  public var links: [LinkProfile]?
  /// Of the matrices that have a central core in common; nil for none.
  public var centres: [SharedCentre]?

  /// Bytes of all tensors of the checkpoint; nil in a profile that no plan by bytes is to be made of.
  public var bytes: Int?
  /// Bytes of the tensors that are not stored again, likewise.
  public var tiedBytes: Int?

  /// A profile of a network; nil for what it does not have.
  public init(
    parameters: Int, tiedParameters: Int, basisParameters: Int? = nil, layers: [LayerProfile],
    links: [LinkProfile]? = nil, centres: [SharedCentre]? = nil, bytes: Int? = nil, tiedBytes: Int? = nil
  ) {
    self.parameters = parameters
    self.tiedParameters = tiedParameters
    self.basisParameters = basisParameters
    self.layers = layers
    self.links = links
    self.centres = centres
    (self.bytes, self.tiedBytes) = (bytes, tiedBytes)
  }

  /// Elements of the tensors that are stored as they are.
  public var denseParameters: Int {
    parameters - tiedParameters - layers.reduce(0) { $0 + $1.denseParameterCount }
  }

  /// Bytes of the tensors that are stored as they are; nil where those of the checkpoint are not known.
  var denseBytes: Int? {
    guard let bytes, let tiedBytes else { return nil }
    return bytes - tiedBytes - layers.reduce(0) { $0 + $1.denseParameterCount * ($1.storage?.elementBytes ?? 0) }
  }

  /// The most parameters that are no larger a part of the whole than `ratio`.
  func largestParameterCount(forRatio ratio: Double) -> Int { Self.largestCount(ratio, of: parameters) }

  /// The largest number that is no larger a part of `whole` than `ratio`.
  static func largestCount(_ ratio: Double, of whole: Int) -> Int {
    guard ratio < 1 else { return whole }
    // The product may be rounded to either side of a whole number.
    var count = Int((ratio * Double(whole)).rounded(.down)) + 1
    while count > 0, Double(count) / Double(whole) > ratio { count -= 1 }
    return count
  }

  /// Whether the counts add up, for profiles that come from a file.
  var hasConsistentTotals: Bool {
    guard parameters >= 0, tiedParameters >= 0, (0...(1 << 56)).contains(bytes ?? 0),
      (0...(bytes ?? 0)).contains(tiedBytes ?? 0), (0...(1 << 56)).contains(basisParameters ?? 0)
    else { return false }
    var rest = parameters
    for count in [tiedParameters] + layers.map(\.denseParameterCount) {
      guard count <= rest else { return false }
      rest -= count
    }
    return denseBytes ?? 0 >= 0
  }

  enum CodingKeys: String, CodingKey {
    case parameters, layers, links, centres, bytes
    case tiedBytes = "tied_bytes"
    case tiedParameters = "tied_parameters"
    case basisParameters = "basis_parameters"
  }
}
