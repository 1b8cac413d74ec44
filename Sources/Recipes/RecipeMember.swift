import Checkpoints
import Squeezing
import TensorNetworks

/// The coding keys of one mapping of a recipe: what a reader of YAML knows of its members.
protocol RecipeMember: CodingKey, CaseIterable {
  /// What the member may be, as the end of a sentence: "a whole number from 2 to 16".
  var allowed: String { get }
  /// The members of the mapping that it is; nil for a value.
  var members: (any RecipeMember.Type)? { get }
}

extension RecipeMember {
  var members: (any RecipeMember.Type)? { nil }

  static var names: [String] { allCases.map(\.stringValue) }

  static func member(named name: String) -> (any RecipeMember)? { allCases.first { $0.stringValue == name } }
}

extension CaseIterable where Self: RawRepresentable, RawValue == String {
  /// `chain, svd or auto`.
  static var choices: String {
    let names = allCases.map(\.rawValue)
    return names.count < 2 ? names.joined() : names.dropLast().joined(separator: ", ") + " or " + names[names.count - 1]
  }
}

extension KeyedDecodingContainer {
  /// A member that may be absent, and must hold when it is there.
  func decode<Value: Decodable>(
    _ key: Key, default value: Value, where holds: (Value) -> Bool = { _ in true }
  ) throws -> Value {
    try decodeIfPresent(key, where: holds) ?? value
  }

  func decodeIfPresent<Value: Decodable>(
    _ key: Key, as type: Value.Type = Value.self, where holds: (Value) -> Bool = { _ in true }
  ) throws -> Value? {
    guard let found = try decodeIfPresent(Value.self, forKey: key) else { return nil }
    guard holds(found) else {
      throw DecodingError.dataCorruptedError(forKey: key, in: self, debugDescription: "\(found) is not allowed")
    }
    return found
  }
}
