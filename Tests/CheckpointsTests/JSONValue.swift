import Checkpoints

/// A JSON value as a tree, for small texts: a node takes many times the bytes of its text, so `parse` limits them.
enum JSONValue: Sendable, Equatable {
  case null
  case bool(Bool)
  /// A number written as an integer that fits 64 bits, exact.
  case integer(Int64)
  case number(Double)
  case string(String)
  case array([JSONValue])
  /// The members in the order of the text.
  case object([Member])

  struct Member: Sendable, Equatable {
    let name: String
    let value: JSONValue

    init(_ name: String, _ value: JSONValue) {
      self.name = name
      self.value = value
    }
  }

  /// Parses a whole text strictly, as `JSONReader` does.
  static func parse(
    _ bytes: UnsafeRawBufferPointer, maximumDepth: Int = 64, maximumNodes: Int = 1_000_000
  ) throws -> JSONValue {
    var left = maximumNodes
    return try JSONReader.read(bytes, maximumDepth: maximumDepth) { try value(from: &$0, &left) }
  }

  private static func value(from reader: inout JSONReader, _ left: inout Int) throws -> JSONValue {
    left -= 1
    guard left >= 0 else { throw reader.error("the text has too many values") }
    switch try reader.nextKind() {
    case .object:
      var members: [Member] = []
      try reader.readObject { members.append(Member($1, try value(from: &$0, &left))) }
      return .object(members)
    case .array:
      var elements: [JSONValue] = []
      try reader.readArray { reader, _ in elements.append(try value(from: &reader, &left)) }
      return .array(elements)
    case .string: return .string(try reader.readString())
    case .number:
      var attempt = reader
      if let integer = try? attempt.readInteger() {
        reader = attempt
        return .integer(integer)
      }
      return .number(try reader.readNumber())
    case .bool: return .bool(try reader.readBool())
    case .null:
      try reader.readNull()
      return .null
    }
  }

  /// The value of an object's member; `nil` where there is none or this is no object.
  subscript(name: String) -> JSONValue? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.name == name }?.value
  }

  var stringValue: String? {
    if case .string(let value) = self { value } else { nil }
  }
}
