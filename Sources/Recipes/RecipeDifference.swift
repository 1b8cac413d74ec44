import Checkpoints
import Files
import FoundationEssentials

/// A member in which two recipes differ.
public struct RecipeDifference: Error, Sendable, Hashable {
  /// As `criterion` or `budget.ratio`.
  public let member: String
  /// The values as JSON; nil for none.
  public let value: String?
  /// What the other recipe says; nil where it says nothing.
  public let otherValue: String?
  /// Where the recipes are from.
  public let path: String
  /// The file of the other recipe.
  public let otherPath: String

  /// What differs, with the names that the reader knows the members by.
  public func text(naming name: (String) -> String) -> String {
    func text(_ value: String?) -> String {
      value.map { "with \(name(member)) \(escaped($0, limit: 400))" } ?? "without \(name(member))"
    }
    return
      "\(escaped(path, limit: 4096)) was made \(text(value)), \(escaped(otherPath, limit: 4096)) \(text(otherValue))"
  }
}

extension RecipeDifference: CustomStringConvertible {
  public var description: String { text { "'\($0)'" } }
}

extension ConversionRecipe {
  /// The members that have a value, as `budget.ratio`, with their values as JSON. Descriptions, which decide nothing,
  /// are left out.
  public var values: [String: String] {
    func flatten(_ value: Any, _ path: String, into result: inout [String: String]) {
      if let object = value as? [String: Any] {
        for (name, value) in object { flatten(value, path.isEmpty ? name : "\(path).\(name)", into: &result) }
      } else {
        result[path] = Self.text(of: value)
      }
    }
    var result: [String: String] = [:]
    if let data = try? JSONEncoder().encode(self), let object = try? JSONDecoder().decode(JSONTree.self, from: data) {
      flatten(object.value, "", into: &result)
    }
    result["metric.description"] = nil
    return result
  }

  private static func text(of value: Any, isNested: Bool = false) -> String {
    if let list = value as? [Any] { return "[\(list.map { text(of: $0, isNested: true) }.joined(separator: ", "))]" }
    if let object = value as? [String: Any] {
      return object.sorted { $0.key < $1.key }.map { "\($0.key) \(text(of: $0.value, isNested: true))" }
        .joined(separator: " ")
    }
    return isNested ? String(reflecting: value) : "\(value)"
  }

  /// The first member, in alphabetical order, in which the recipe is not the other one; nil when they ask for the same.
  public func difference(from other: ConversionRecipe, path: String, otherPath: String) -> RecipeDifference? {
    let (own, others) = (values, other.values)
    // Globs are equal when their bytes are.
    func bytes(_ value: String?) -> TensorName? { value.map { TensorName($0) } }
    let member = Set(own.keys).union(others.keys).sorted().first { bytes(own[$0]) != bytes(others[$0]) }
    return member.map {
      RecipeDifference(member: $0, value: own[$0], otherValue: others[$0], path: path, otherPath: otherPath)
    }
  }
}

/// Any JSON value.
private struct JSONTree: Decodable {
  let value: Any

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let object = try? container.decode([String: JSONTree].self) {
      value = object.mapValues(\.value)
    } else if let list = try? container.decode([JSONTree].self) {
      value = list.map(\.value)
    } else if let flag = try? container.decode(Bool.self) {
      value = flag
    } else if let number = try? container.decode(Int.self) {
      value = number
    } else if let number = try? container.decode(Double.self) {
      value = number
    } else {
      value = try container.decode(String.self)
    }
  }
}
