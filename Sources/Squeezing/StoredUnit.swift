import TensorNetworks

/// What a plan counts.
enum StoredUnit: Sendable, Hashable {
  /// The numbers that are stored.
  case numbers
  /// The bytes that they take, pivots and scales included; forms may be of integers then.
  /// - elementBytes: of a plain value of a core; nil for that of the matrix.
  case bytes(elementBytes: Int?)

  var hasIntegers: Bool { self != .numbers }

  /// Of a matrix that stays dense.
  func size(of layer: LayerProfile) -> Int {
    switch self {
    case .numbers: layer.denseParameterCount
    case .bytes: layer.denseParameterCount * (layer.storage?.elementBytes ?? 4)
    }
  }

  func size(of form: OperatorForm, of layer: LayerProfile) -> Int {
    switch self {
    case .numbers: form.storedCount
    case .bytes(let elementBytes):
      form.storedBytes(elementBytes: elementBytes ?? layer.storage?.elementBytes ?? 4)
    }
  }
}

extension IntegerGroups {
  /// Those that a plan by bytes chooses among.
  static let planned = bitChoices.flatMap { bits in
    LayerProfile.Storage.groups.compactMap { IntegerGroups(bits: bits, group: $0) }
  }
}
