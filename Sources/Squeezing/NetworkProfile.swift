/// The profiles of all matrices of a network that may be decomposed, and the parameters that stay as they are.
public struct NetworkProfile: Sendable, Hashable, Codable {
  /// Elements of all tensors of the checkpoint.
  public let parameters: Int
  /// Elements of the tensors that are the same bytes as another one, and are not stored again.
  public let tiedParameters: Int
  public var layers: [LayerProfile]

  public init(parameters: Int, tiedParameters: Int, layers: [LayerProfile]) {
    self.parameters = parameters
    self.tiedParameters = tiedParameters
    self.layers = layers
  }

  /// Elements of the tensors that are stored as they are.
  public var denseParameters: Int {
    parameters - tiedParameters - layers.reduce(0) { $0 + $1.denseParameterCount }
  }

  enum CodingKeys: String, CodingKey {
    case parameters, layers
    case tiedParameters = "tied_parameters"
  }
}
