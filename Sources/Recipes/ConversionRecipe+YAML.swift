import Yams

extension ConversionRecipe {
  /// Reads a recipe as YAML (or JSON, which is YAML too). Absent members have their defaults; members that no recipe has
  /// are errors.
  ///
  /// - Parameter path: of the file, for messages.
  /// - Throws: `RecipeError`.
  public init(yaml: String, path: String) throws {
    let root: Node?
    do {
      root = try Yams.compose(yaml: yaml)
    } catch let error as YamlError {
      throw RecipeError.syntax(path: path, line: error.line, reason: error.problem)
    }
    guard let root, root.null == nil else {
      self.init()
      return
    }
    guard root.mapping != nil else {
      throw RecipeError.syntax(path: path, line: root.mark?.line, reason: "a recipe is a mapping of members to values")
    }
    try Self.checkMembers(of: root, CodingKeys.self, prefix: [], path: path)
    do {
      self = try YAMLDecoder().decode(from: root)
    } catch let error as DecodingError {
      throw Self.error(for: error.codingPath, in: root, path: path)
    }
    if let conflict = conflict() { throw RecipeError.conflict(path: path, conflict) }
  }

  /// As YAML that `init(yaml:path:)` reads, with the defaults written out.
  public func yaml() throws -> String {
    let encoder = YAMLEncoder()
    encoder.options.allowUnicode = true
    let node = try Yams.compose(yaml: encoder.encode(self)) ?? Node([(Node, Node)]())
    return try Yams.serialize(node: node.readable, width: 120, allowUnicode: true)
  }

  /// Finds members that no recipe has.
  private static func checkMembers(
    of node: Node, _ members: any RecipeMember.Type, prefix: [String], path: String
  ) throws {
    if let sequence = node.sequence {
      for element in sequence { try checkMembers(of: element, members, prefix: prefix, path: path) }
    }
    for (key, value) in node.mapping ?? [:] {
      let name = key.string ?? ""
      guard let member = members.member(named: name) else {
        throw RecipeError.unknownMember(
          path: path, line: key.mark?.line, member: (prefix + [name]).joined(separator: "."),
          nearest: nearestMember(to: name, in: prefix))
      }
      if let nested = member.members { try checkMembers(of: value, nested, prefix: prefix + [name], path: path) }
    }
  }

  /// The member whose name is most like `name`, of the same mapping where another one is as near.
  private static func nearestMember(to name: String, in prefix: [String]) -> String {
    let all = allMembers(CodingKeys.self, prefix: [])
    let nearest = all.min { a, b in
      func rank(_ path: [String]) -> (Int, Int) {
        (editDistance(name.lowercased(), path[path.count - 1]), path.dropLast() == prefix[...] ? 0 : 1)
      }
      return rank(a) < rank(b)
    }
    return nearest?.joined(separator: ".") ?? ""
  }

  private static func allMembers(_ members: any RecipeMember.Type, prefix: [String]) -> [[String]] {
    members.names.flatMap { name in
      let path = prefix + [name]
      return [path] + (members.member(named: name)?.members.map { allMembers($0, prefix: path) } ?? [])
    }
  }

  /// The error for a value that could not be decoded.
  private static func error(for codingPath: [any CodingKey], in root: Node, path: String) -> RecipeError {
    var members: (any RecipeMember.Type)? = CodingKeys.self
    var node = root
    var line = root.mark?.line
    var names: [String] = []
    var allowed = "a mapping of \(CodingKeys.names.joined(separator: ", "))"
    for key in codingPath {
      if key.intValue == nil {
        names.append(key.stringValue)
        guard let member = members?.member(named: key.stringValue) else { break }
        allowed = member.allowed
        members = member.members
      }
      guard
        let next = key.intValue.map({ index in node.sequence.flatMap { index < $0.count ? $0[index] : nil } })
          ?? node.mapping?[Node(key.stringValue)]
      else { break }
      node = next
      line = node.mark?.line ?? line
    }
    return .badMember(path: path, line: line, member: names.joined(separator: "."), allowed: allowed)
  }
}

extension DecodingError {
  /// Where the value is, with the key that is missing.
  fileprivate var codingPath: [any CodingKey] {
    switch self {
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context): context.codingPath
    case .keyNotFound(let key, let context): context.codingPath + [key]
    @unknown default: []
    }
  }
}

extension YamlError {
  fileprivate var line: Int? {
    switch self {
    case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _): mark.line
    case .duplicatedKeysInMapping(_, let context): context.mark.line
    default: nil
    }
  }

  fileprivate var problem: String {
    switch self {
    case .scanner(_, let problem, _, _), .parser(_, let problem, _, _), .composer(_, let problem, _, _),
      .reader(let problem, _, _, _):
      problem
    case .duplicatedKeysInMapping(let names, _):
      "\(names.sorted().map { "'\($0)'" }.joined(separator: ", ")) is there twice"
    default: "\(self)"
    }
  }
}

extension Node {
  /// The same content: numbers as Swift writes them, lists of values on one line.
  fileprivate var readable: Node {
    switch self {
    case .scalar(var scalar):
      if tag == Tag(.float), let value = Double(scalar.string) { scalar.string = "\(value)" }
      return .scalar(scalar)
    case .mapping(let mapping):
      return Node(mapping.map { ($0.key, $0.value.readable) })
    case .sequence(let sequence):
      let isOfValues = sequence.allSatisfy { $0.scalar != nil }
      return Node(sequence.map(\.readable), .implicit, isOfValues ? .flow : .block)
    case .alias: return self
    }
  }
}
