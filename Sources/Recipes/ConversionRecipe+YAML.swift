import FoundationEssentials
import Yams

extension ConversionRecipe {
  /// Reads a recipe as YAML (or JSON, which is YAML too). Absent members have their defaults; members that no recipe has
  /// are errors, and so are anchors.
  ///
  /// - Parameters:
  ///   - yaml: the text of the file.
  ///   - path: of the file, for messages.
  /// - Throws: `RecipeError`.
  public init(yaml: String, path: String) throws {
    try Self.checkAnchors(in: yaml, path: path)
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
  /// - Throws: What the YAML library throws.
  public func yaml() throws -> String {
    // Its own encoder of YAML rounds numbers to 15 digits.
    let encoder = JSONEncoder()
    encoder.outputFormatting = .withoutEscapingSlashes
    let json = String(decoding: try encoder.encode(self), as: UTF8.self)
    let node = try Yams.compose(yaml: json)?.readable(CodingKeys.self)
    return try node.map { try Yams.serialize(node: $0, width: 120, allowUnicode: true) } ?? ""
  }

  /// Refuses anchors (`&name`), also in comments and quoted text: aliases of aliases stand for more than any computer
  /// counts, and the parser follows all of them.
  private static func checkAnchors(in yaml: String, path: String) throws {
    let bytes = Array(yaml.utf8)
    func isName(_ byte: UInt8) -> Bool {
      let character = Character(UnicodeScalar(byte))
      return character.isASCII && (character.isLetter || character.isNumber || "-_".contains(character))
    }
    for (index, byte) in bytes.enumerated().dropLast() where byte == UInt8(ascii: "&") {
      let followsText = index > 0 && (isName(bytes[index - 1]) || ".*\\".utf8.contains(bytes[index - 1]))
      guard !followsText, isName(bytes[index + 1]) else { continue }
      let name = bytes[(index + 1)...].prefix(while: isName)
      throw RecipeError.syntax(
        path: path, line: 1 + bytes[..<index].count { $0 == UInt8(ascii: "\n") },
        reason: "'&\(String(decoding: name, as: UTF8.self))': a recipe has no anchors; repeat the value")
    }
  }

  /// Finds members that no recipe has.
  private static func checkMembers(
    of node: Node, _ members: any RecipeMember.Type, prefix: [String], path: String
  ) throws {
    for element in node.sequence ?? [] { try checkMembers(of: element, members, prefix: prefix, path: path) }
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

  /// The member whose name is most like `name`: of the same mapping, unless it is nearly that of another one.
  private static func nearestMember(to name: String, in prefix: [String]) -> String {
    let ranked = allMembers(CodingKeys.self, prefix: []).map { path in
      (path: path, distance: editDistance(name.lowercased(), path[path.count - 1]))
    }
    func nearest(_ isCandidate: ([String]) -> Bool) -> (path: [String], distance: Int)? {
      ranked.filter { isCandidate($0.path) }.min { $0.distance < $1.distance }
    }
    let own = nearest { $0.dropLast() == prefix[...] }
    let other = nearest { $0.dropLast() != prefix[...] }
    guard let own, let other else { return "" }
    let isOther = other.distance < own.distance && other.distance <= name.count / 3
    return (isOther ? other : own).path.joined(separator: ".")
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
  /// The same content as a reader likes it: members in their order, lists of values on one line, no needless quotes.
  fileprivate func readable(_ members: (any RecipeMember.Type)?) -> Node {
    switch self {
    case .scalar(var scalar):
      if scalar.style != .plain, Node(scalar.string).tag == Tag(.str) { scalar.style = .any }
      return .scalar(scalar)
    case .mapping(let mapping):
      let order = members?.names ?? []
      let pairs = mapping.sorted { a, b in
        (order.firstIndex(of: a.key.string ?? "") ?? 0) < (order.firstIndex(of: b.key.string ?? "") ?? 0)
      }
      return Node(
        pairs.map { pair in
          (
            pair.key.readable(nil),
            pair.value.readable(pair.key.string.flatMap { members?.member(named: $0) }?.members)
          )
        }, .implicit, .block)
    case .sequence(let sequence):
      let isOfValues = sequence.allSatisfy { $0.scalar != nil }
      return Node(sequence.map { $0.readable(members) }, .implicit, isOfValues ? .flow : .block)
    case .alias: return self
    }
  }
}
