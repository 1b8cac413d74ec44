/// The profiles of all matrices of a network that may be decomposed, and the parameters that stay as they are.
public struct NetworkProfile: Sendable, Hashable, Codable {
  /// Elements of all tensors of the checkpoint.
  public let parameters: Int
  /// Elements of the tensors that are stored as they are, tied ones once.
  public let denseParameters: Int
  public var layers: [LayerProfile]

  public init(parameters: Int, denseParameters: Int, layers: [LayerProfile]) {
    self.parameters = parameters
    self.denseParameters = denseParameters
    self.layers = layers
  }

  enum CodingKeys: String, CodingKey {
    case parameters, layers
    case denseParameters = "dense_parameters"
  }
}
