import Testing

@testable import Conversion

@Suite struct LinkGlobTests {
  private func parts(_ glob: String, _ name: String) throws -> [String]? {
    try LinkGlob(glob).match(name)?.map { segment in
      switch segment.kind {
      case .fixed: segment.text
      case .wildcard: "*\(segment.text)"
      case .braces: "{\(segment.text)}"
      }
    }
  }

  @Test func `a name is taken apart as the glob says`() throws {
    #expect(try parts("a.*.{q,k}.w", "a.12.k.w") == ["a.", "*12", ".", "{k}", ".w"])
    #expect(try parts("a.*.{q,k}.w", "a.12.v.w") == nil)
    #expect(try parts("a.*.{q,k}.w", "a.12.k.wx") == nil)
    #expect(try parts("{*}.w", "x.y.w") == ["{x.y}", ".w"])
    #expect(try parts("{a,b}{1,2}", "b1") == ["{b}", "{1}"])
    #expect(try parts("x[0-9a]?", "x7y") == ["x", "*7", "*y"])
    #expect(try parts("x[!0-9]", "x7") == nil)
    #expect(try parts("x[!0-9]", "xé") == nil)
    #expect(try parts("\\{a\\*", "{a*") == ["{a*"])
    #expect(try parts("*a", "banana") == ["*banan", "a"])
    #expect(try parts("", "") == [])
  }

  @Test func `stars on a long name take no time`() throws {
    let glob = String(repeating: "*a", count: 60) + "b"
    #expect(try parts(glob, String(repeating: "a", count: 400)) == nil)
  }

  @Test(arguments: [
    ("{a,{b}}", "braces in braces"), ("{a", "open brace"), ("[a", "open bracket"), ("a\\", "backslash"),
    (String(repeating: "{a,b}", count: 20), "alternatives"), (String(repeating: "a", count: 5000), "bytes"),
  ])
  func `what is not a glob is refused`(glob: String, reason: String) throws {
    let error = #expect(throws: LinkGlob.Invalid.self) { try LinkGlob(glob) }
    #expect(error?.reason.contains(reason) == true)
  }
}
