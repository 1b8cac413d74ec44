import Files
import Glibc

/// A strict reader of JSON (RFC 8259) that hands over what it meets as it goes, without building a tree.
///
/// Stricter than the RFC asks for: duplicate names in an object, ill-formed UTF-8, lone surrogates, numbers outside the
/// range of their type, nesting beyond `maximumDepth` and anything behind the value are errors. Names are equal when
/// their bytes are.
package struct JSONReader {
  package enum Kind: String, Sendable {
    case object = "an object"
    case array = "an array"
    case string = "a string"
    case number = "a number"
    case bool = "true or false"
    case null = "null"
  }

  private let bytes: UnsafeBufferPointer<UInt8>
  /// The offset of the next byte to read.
  package private(set) var offset = 0
  private var depth = 0
  private let maximumDepth: Int

  /// A reader of the text in `bytes`, which must outlive it.
  package init(_ bytes: UnsafeRawBufferPointer, maximumDepth: Int = 64) {
    self.bytes = bytes.assumingMemoryBound(to: UInt8.self)
    self.maximumDepth = maximumDepth
  }

  /// What some editors put in front of UTF-8 text.
  static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

  /// Reads one value with `body` from `bytes`, behind a byte-order mark where there is one, and checks that only white
  /// space follows it.
  package static func read<Result>(
    _ bytes: UnsafeRawBufferPointer, maximumDepth: Int = 64, _ body: (inout JSONReader) throws -> Result
  ) throws -> Result {
    var reader = JSONReader(bytes, maximumDepth: maximumDepth)
    if bytes.starts(with: byteOrderMark) { reader.offset = byteOrderMark.count }
    let result = try body(&reader)
    reader.skipSpace()
    guard reader.offset == reader.bytes.count else { throw reader.error("something follows the JSON value") }
    return result
  }

  /// The kind of the value that comes next.
  package mutating func nextKind() throws -> Kind {
    skipSpace()
    guard offset < bytes.count else { throw error("the text ends where a value was expected") }
    switch bytes[offset] {
    case UInt8(ascii: "{"): return .object
    case UInt8(ascii: "["): return .array
    case UInt8(ascii: "\""): return .string
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number
    case UInt8(ascii: "t"), UInt8(ascii: "f"): return .bool
    case UInt8(ascii: "n"): return .null
    default: throw error("a value was expected")
    }
  }

  /// Reads an object; `member` is called with every name in order and must read (or skip) its value.
  package mutating func readObject(_ member: (inout JSONReader, String) throws -> Void) throws {
    try require(.object)
    try descend()
    offset += 1
    var names = NameSet()
    skipSpace()
    if take("}") {
      depth -= 1
      return
    }
    while true {
      skipSpace()
      let start = offset
      guard offset < bytes.count, bytes[offset] == UInt8(ascii: "\"") else { throw error("a name was expected") }
      let name = try readString()
      guard names.insert(TensorName(name)) else {
        throw JSONError(offset: start, reason: "the name '\(escaped(name))' occurs twice in one object")
      }
      skipSpace()
      guard take(":") else { throw error("':' was expected") }
      try member(&self, name)
      skipSpace()
      if take(",") { continue }
      guard take("}") else { throw error("',' or '}' was expected") }
      depth -= 1
      return
    }
  }

  /// Reads an array; `element` is called for every element with its index and must read (or skip) it.
  package mutating func readArray(_ element: (inout JSONReader, Int) throws -> Void) throws {
    try require(.array)
    try descend()
    offset += 1
    skipSpace()
    if take("]") {
      depth -= 1
      return
    }
    var index = 0
    while true {
      try element(&self, index)
      index += 1
      skipSpace()
      if take(",") { continue }
      guard take("]") else { throw error("',' or ']' was expected") }
      depth -= 1
      return
    }
  }

  /// Reads a string.
  package mutating func readString() throws -> String {
    try require(.string)
    offset += 1
    let start = offset
    while offset < bytes.count {
      let byte = bytes[offset]
      if byte == UInt8(ascii: "\"") {
        let text = try validated(UnsafeBufferPointer(rebasing: bytes[start..<offset]), at: start)
        offset += 1
        return text
      }
      if byte == UInt8(ascii: "\\") { return try readEscapedString(from: start) }
      if byte < 0x20 { throw error("a control character stands in a string unescaped") }
      offset += 1
    }
    throw error("the text ends inside a string")
  }

  /// Reads a number that is written as an integer and fits 64 bits.
  package mutating func readInteger() throws -> Int64 {
    try require(.number)
    let start = offset
    let (end, isInteger) = try numberEnd()
    guard isInteger else { throw error("an integer was expected") }
    let isNegative = bytes[start] == UInt8(ascii: "-")
    var value: Int64 = 0
    for index in (isNegative ? start + 1 : start)..<end {
      let digit = Int64(bytes[index] - UInt8(ascii: "0"))
      let (product, productOverflows) = value.multipliedReportingOverflow(by: 10)
      let (sum, sumOverflows) =
        isNegative ? product.subtractingReportingOverflow(digit) : product.addingReportingOverflow(digit)
      guard !productOverflows, !sumOverflows else { throw error("the integer does not fit 64 bits") }
      value = sum
    }
    offset = end
    return value
  }

  /// Reads any number.
  package mutating func readNumber() throws -> Double {
    try require(.number)
    let (end, _) = try numberEnd()
    // A copy that ends with a zero: strtod knows no other end.
    let value = withUnsafeTemporaryAllocation(of: CChar.self, capacity: end - offset + 1) { text in
      for index in offset..<end { text[index - offset] = CChar(bitPattern: bytes[index]) }
      text[end - offset] = 0
      return text.baseAddress.map { strtod($0, nil) } ?? .nan
    }
    guard value.isFinite else { throw error("the number is out of range") }
    offset = end
    return value
  }

  /// Reads `true` or `false`.
  package mutating func readBool() throws -> Bool {
    try require(.bool)
    if bytes[offset] == UInt8(ascii: "t") {
      try takeWord("true")
      return true
    }
    try takeWord("false")
    return false
  }

  /// Reads `null`.
  package mutating func readNull() throws {
    try require(.null)
    try takeWord("null")
  }

  /// Reads a value of any kind, checks it and forgets it.
  package mutating func skipValue() throws {
    switch try nextKind() {
    case .object: try readObject { reader, _ in try reader.skipValue() }
    case .array: try readArray { reader, _ in try reader.skipValue() }
    case .string: _ = try readString()
    case .number: _ = try readNumber()
    case .bool: _ = try readBool()
    case .null: try readNull()
    }
  }

  /// An error at the next byte.
  package func error(_ reason: String) -> JSONError { JSONError(offset: offset, reason: reason) }

  // MARK: - Lexical parts

  private mutating func require(_ kind: Kind) throws {
    let found = try nextKind()
    guard found == kind else { throw error("\(kind.rawValue) was expected, not \(found.rawValue)") }
  }

  private mutating func descend() throws {
    depth += 1
    guard depth <= maximumDepth else { throw error("the nesting is deeper than \(maximumDepth) levels") }
  }

  private mutating func skipSpace() {
    while offset < bytes.count {
      switch bytes[offset] {
      case 0x20, 0x0A, 0x0D, 0x09: offset += 1
      default: return
      }
    }
  }

  private mutating func take(_ byte: Unicode.Scalar) -> Bool {
    guard offset < bytes.count, bytes[offset] == UInt8(ascii: byte) else { return false }
    offset += 1
    return true
  }

  private mutating func takeWord(_ word: StaticString) throws {
    for (index, byte) in UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount).enumerated() {
      guard offset + index < bytes.count, bytes[offset + index] == byte else {
        throw error("'\(word)' was expected")
      }
    }
    offset += word.utf8CodeUnitCount
  }

  /// The end of the number at `offset`, and whether it has neither fraction nor exponent.
  private func numberEnd() throws -> (end: Int, isInteger: Bool) {
    var end = offset
    func isDigit(_ index: Int) -> Bool {
      index < bytes.count && bytes[index] >= UInt8(ascii: "0") && bytes[index] <= UInt8(ascii: "9")
    }
    func malformed() -> JSONError { JSONError(offset: offset, reason: "a malformed number") }

    if bytes[end] == UInt8(ascii: "-") { end += 1 }
    guard isDigit(end) else { throw malformed() }
    if bytes[end] == UInt8(ascii: "0") {
      end += 1
      guard !isDigit(end) else { throw malformed() }
    } else {
      while isDigit(end) { end += 1 }
    }
    var isInteger = true
    if end < bytes.count, bytes[end] == UInt8(ascii: ".") {
      isInteger = false
      end += 1
      guard isDigit(end) else { throw malformed() }
      while isDigit(end) { end += 1 }
    }
    if end < bytes.count, bytes[end] == UInt8(ascii: "e") || bytes[end] == UInt8(ascii: "E") {
      isInteger = false
      end += 1
      if end < bytes.count, bytes[end] == UInt8(ascii: "+") || bytes[end] == UInt8(ascii: "-") { end += 1 }
      guard isDigit(end) else { throw malformed() }
      while isDigit(end) { end += 1 }
    }
    return (end, isInteger)
  }

  private func validated(_ text: some Collection<UInt8>, at start: Int) throws -> String {
    guard let string = String(validating: text, as: UTF8.self) else {
      throw JSONError(offset: start, reason: "a string is not valid UTF-8")
    }
    return string
  }

  /// Reads the rest of a string that has an escape at `offset` and began at `start`.
  private mutating func readEscapedString(from start: Int) throws -> String {
    var text = Array(bytes[start..<offset])
    while offset < bytes.count {
      let byte = bytes[offset]
      switch byte {
      case UInt8(ascii: "\""):
        let string = try validated(text, at: start)
        offset += 1
        return string
      case UInt8(ascii: "\\"):
        offset += 1
        guard offset < bytes.count else { throw error("the text ends inside a string") }
        let letter = bytes[offset]
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(letter)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
          offset += 1
          text.append(contentsOf: try readScalar().utf8)
          continue
        default: throw error("an unknown escape")
        }
        offset += 1
      case 0..<0x20: throw error("a control character stands in a string unescaped")
      default:
        text.append(byte)
        offset += 1
      }
    }
    throw error("the text ends inside a string")
  }

  /// Reads the four digits behind `\u`, and the second half of a surrogate pair where they are a first half.
  private mutating func readScalar() throws -> Unicode.Scalar {
    let first = try readHex()
    var value = UInt32(first)
    if (0xD800..<0xDC00).contains(first) {
      guard take("\\"), take("u") else { throw error("a lone surrogate") }
      let second = try readHex()
      guard (0xDC00..<0xE000).contains(second) else { throw error("a lone surrogate") }
      value = 0x10000 + (UInt32(first - 0xD800) << 10) + UInt32(second - 0xDC00)
    }
    guard let scalar = Unicode.Scalar(value) else { throw error("a lone surrogate") }
    return scalar
  }

  private mutating func readHex() throws -> UInt16 {
    guard offset + 4 <= bytes.count else { throw error("the text ends inside an escape") }
    var value: UInt16 = 0
    for _ in 0..<4 {
      let byte = bytes[offset]
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
      default: throw error("an escape needs four hexadecimal digits")
      }
      value = value << 4 | UInt16(digit)
      offset += 1
    }
    return value
  }
}

/// The names seen in one object: a list while there are few, which is the common case and needs no hashing.
private struct NameSet {
  private var few: [TensorName] = []
  private var many: Set<TensorName> = []

  /// Adds `name`; false when it was there already.
  mutating func insert(_ name: TensorName) -> Bool {
    if !many.isEmpty { return many.insert(name).inserted }
    guard !few.contains(name) else { return false }
    few.append(name)
    if few.count > 8 { many = Set(few) }
    return true
  }
}
