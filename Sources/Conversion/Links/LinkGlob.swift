/// A glob with braces, which says what its parts stand for in a name: `layers.*.{q,k}.weight`.
///
/// `*` stands for any text, `?` for one byte, `[abc]` and `[!a-z]` for one of a set, `\` takes what follows as it is; braces
/// hold alternatives, globs without braces.
struct LinkGlob: Sendable {
  /// A part of a name that matches.
  struct Segment: Hashable {
    enum Kind { case fixed, wildcard, braces }
    let kind: Kind
    let bytes: [UInt8]
    var text: String { String(decoding: bytes, as: UTF8.self) }
  }

  private enum Token {
    case byte(UInt8)
    /// One byte of a set.
    case one([Bool])
    case star
    case open, close
  }

  /// Without alternatives: one list of tokens for each choice in all braces.
  private let choices: [[Token]]
  let hasBraces: Bool

  /// Why a text is no such glob, as the end of a sentence.
  struct Invalid: Error { let reason: String }

  static let maximumLength = 4096
  private static let maximumChoices = 256

  /// - Throws: `Invalid`.
  init(_ text: String) throws {
    var reader = Array(text.utf8)[...]
    guard reader.count <= Self.maximumLength else {
      throw Invalid(reason: "is longer than \(Self.maximumLength) bytes")
    }
    var choices: [[Token]] = [[]]
    var hasBraces = false
    while let byte = reader.first {
      guard byte == UInt8(ascii: "{") else {
        let token = try Self.token(from: &reader)
        for index in choices.indices { choices[index].append(token) }
        continue
      }
      reader.removeFirst()
      hasBraces = true
      var alternatives: [[Token]] = [[]]
      while let byte = reader.first, byte != UInt8(ascii: "}") {
        if byte == UInt8(ascii: "{") { throw Invalid(reason: "has braces in braces") }
        if byte == UInt8(ascii: ",") {
          reader.removeFirst()
          alternatives.append([])
        } else {
          alternatives[alternatives.count - 1].append(try Self.token(from: &reader))
        }
      }
      guard reader.popFirst() != nil else { throw Invalid(reason: "has an open brace and no closing one") }
      choices = choices.flatMap { choice in alternatives.map { choice + [.open] + $0 + [.close] } }
      guard choices.count <= Self.maximumChoices else { throw Invalid(reason: "has too many alternatives") }
    }
    (self.choices, self.hasBraces) = (choices, hasBraces)
  }

  private static func token(from reader: inout ArraySlice<UInt8>) throws -> Token {
    guard let byte = reader.popFirst() else { throw Invalid(reason: "is empty") }
    switch byte {
    case UInt8(ascii: "*"): return .star
    case UInt8(ascii: "?"): return .one(Array(repeating: true, count: 256))
    case UInt8(ascii: "\\"):
      guard let next = reader.popFirst() else { throw Invalid(reason: "ends with a backslash") }
      return .byte(next)
    case UInt8(ascii: "["):
      guard let end = reader.dropFirst().firstIndex(of: UInt8(ascii: "]")) else {
        throw Invalid(reason: "has an open bracket and no closing one")
      }
      var members = reader[..<end]
      reader = reader[(end + 1)...]
      let isNegated = members.first == UInt8(ascii: "!") || members.first == UInt8(ascii: "^")
      if isNegated { members.removeFirst() }
      var set = Array(repeating: isNegated, count: 256)
      while let first = members.popFirst() {
        var last = first
        if members.count >= 2, members.first == UInt8(ascii: "-") {
          members.removeFirst()
          last = members.removeFirst()
        }
        for value in first...max(first, last) { set[Int(value)] = !isNegated }
      }
      return .one(set)
    default: return .byte(byte)
    }
  }

  /// The parts of a whole name, by the first choice that matches it, stars as short as they can be; nil where none does.
  func match(_ name: String) -> [Segment]? {
    let bytes = Array(name.utf8)
    return choices.lazy.compactMap { Self.match($0, bytes) }.first
  }

  private static func match(_ tokens: [Token], _ bytes: [UInt8]) -> [Segment]? {
    // Where each token begins, in a search that remembers what has failed.
    var starts = Array(repeating: 0, count: tokens.count + 1)
    var failed: Set<Int> = []
    func search(_ token: Int, _ place: Int) -> Bool {
      starts[token] = place
      guard token < tokens.count else { return place == bytes.count }
      let state = token * (bytes.count + 1) + place
      guard !failed.contains(state) else { return false }
      let found =
        switch tokens[token] {
        case .byte(let byte): place < bytes.count && bytes[place] == byte && search(token + 1, place + 1)
        case .one(let set): place < bytes.count && set[Int(bytes[place])] && search(token + 1, place + 1)
        case .star: (place...bytes.count).contains { search(token + 1, $0) }
        case .open, .close: search(token + 1, place)
        }
      if !found { failed.insert(state) }
      // Later searches have overwritten it.
      starts[token] = place
      return found
    }
    guard search(0, 0) else { return nil }
    var segments: [Segment] = []
    func add(_ kind: Segment.Kind, _ range: Range<Int>) {
      if kind == .fixed, let last = segments.last, last.kind == .fixed {
        segments[segments.count - 1] = Segment(kind: .fixed, bytes: last.bytes + bytes[range])
      } else {
        segments.append(Segment(kind: kind, bytes: Array(bytes[range])))
      }
    }
    var open: Int?
    for (index, token) in tokens.enumerated() {
      switch token {
      case .open: open = starts[index]
      case .close:
        add(.braces, (open ?? 0)..<starts[index])
        open = nil
      case .byte: if open == nil { add(.fixed, starts[index]..<starts[index + 1]) }
      case .one, .star: if open == nil { add(.wildcard, starts[index]..<starts[index + 1]) }
      }
    }
    return segments
  }
}

extension LinkGlob {
  /// - Parameter refused: the error that says why the glob can't be read.
  init(_ glob: String, _ refused: (String) -> ConversionError) throws {
    do {
      self = try LinkGlob(glob)
    } catch let error as LinkGlob.Invalid {
      throw refused(error.reason)
    }
  }
}
