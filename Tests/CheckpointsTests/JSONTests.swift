import Testing

@testable import Checkpoints

@Suite struct JSONTests {
  private func parse(_ text: String) throws -> JSONValue {
    try Array(text.utf8).withUnsafeBytes { try JSONValue.parse($0) }
  }

  @Test func `every kind of value is read, objects in order`() throws {
    let value = try parse(
      #" { "z" : [ 1 , -2.5e-1 , true , false , null , "a\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00" ] , "a" : { } } "#)
    #expect(
      value
        == .object([
          .init(
            "z",
            .array([
              .integer(1), .number(-0.25), .bool(true), .bool(false), .null,
              .string("a\"\\/\u{8}\u{C}\n\r\té😀"),
            ])),
          .init("a", .object([])),
        ]))
    #expect(value["a"] == .object([]))
  }

  @Test func `64-bit integers are exact`() throws {
    #expect(try parse("9223372036854775807") == .integer(.max))
    #expect(try parse("-9223372036854775808") == .integer(.min))
    #expect(try parse("9007199254740993") == .integer(9_007_199_254_740_993))
    #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
    #expect(try parse("-0") == .integer(0))
  }

  @Test(arguments: [
    "", " ", "01", "-", "+1", "1.", ".5", "1e", "1e+", "0x1", "1e999", "NaN", "Infinity", "tru", "nul", "truee", "'a'",
    "\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\u{1}\"",
    "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "{\"a\" 1}",
    "{1:1}", "1 1", "[]]", "{\"a\":1,\"a\":2}", "/**/1",
  ])
  func `what is not strict JSON is refused`(text: String) throws {
    #expect(throws: JSONError.self) { try parse(text) }
    #expect(throws: JSONError.self) {
      try Array(text.utf8).withUnsafeBytes { try JSONReader.read($0) { try $0.skipValue() } }
    }
  }

  @Test func `names are equal when their bytes are`() throws {
    guard case .object(let members) = try parse("{\"\u{E9}\":1,\"e\u{301}\":2}") else {
      Issue.record("no object")
      return
    }
    #expect(members.map { Array($0.name.utf8) } == [[0xC3, 0xA9], [0x65, 0xCC, 0x81]])
  }

  @Test func `the depth and the number of values are limited`() throws {
    #expect(throws: Never.self) { try parse(String(repeating: "[", count: 64) + String(repeating: "]", count: 64)) }
    #expect(throws: JSONError.self) { try parse(String(repeating: "[", count: 65) + String(repeating: "]", count: 65)) }
    #expect(throws: JSONError.self) {
      try Array("[1,2,3]".utf8).withUnsafeBytes { try JSONValue.parse($0, maximumNodes: 3) }
    }
  }

  @Test func `written strings are read back`() throws {
    let text = String(String.UnicodeScalarView((0...0x2FF).compactMap(Unicode.Scalar.init))) + "😀\u{10FFFF}"
    #expect(try parse(jsonString(text)) == .string(text))
    let ascii = jsonString(text, asciiOnly: true)
    #expect(try parse(ascii) == .string(text))
    #expect(ascii.utf8.allSatisfy { $0 < 0x7F })
    #expect(jsonString("a\u{7F}é😀\n", asciiOnly: true) == #""a\u007f\u00e9\ud83d\ude00\n""#)
  }
}
