import Foundation
import TestSupport
import Testing

@testable import Files

@Suite struct FileFingerprintTests {
  @Test func `the hash is SHA-256`() throws {
    let folder = try TemporaryFolder()
    let abc = try FileFingerprint(ofFileAt: folder.write("abc", to: "a.txt"))
    #expect(
      abc
        == FileFingerprint(
          file: "a.txt", bytes: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
    let empty = try FileFingerprint(ofFileAt: folder.write("", to: "b"), named: "other")
    #expect(empty.file == "other" && empty.bytes == 0)
    #expect(empty.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    // A million times 'a': more than one block of reading, if it were smaller.
    let million = try FileFingerprint(ofFileAt: folder.write([UInt8](repeating: 0x61, count: 1_000_000), to: "c"))
    #expect(million.sha256 == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
  }

  @Test func `what is not a regular file is refused`() throws {
    for path in ["/dev/zero", "/tmp", "/no/such/file"] {
      #expect(throws: FileError.self) { try FileFingerprint(ofFileAt: path) }
    }
  }
}
