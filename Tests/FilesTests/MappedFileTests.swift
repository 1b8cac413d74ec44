import Foundation
import TestSupport
import Testing

@testable import Files

@Suite struct MappedFileTests {
  // Tests in processes of their own came with Swift 6.2.
  #if compiler(>=6.2)
    @Test func `a file that is cut while it is read ends the process with a message that names it`() async throws {
      let result = try await #require(
        processExitsWith: .exitCode(1), observing: [\.standardErrorContent]
      ) {
        let folder = try TemporaryFolder()
        let path = try folder.write([UInt8](repeating: 7, count: 1 << 20), to: "cut\n.bin")
        let other = try folder.write([UInt8](repeating: 7, count: 1 << 20), to: "whole.bin")
        MappedFile.reportLostPages(program: "test")
        let file = try MappedFile(path: path)
        try MappedFile(path: other).withBytes(in: 0..<1 << 20) { whole in
          try file.withBytes(in: 0..<1 << 20) { bytes in
            truncate(path, 100)
            print(bytes.reduce(whole.reduce(0) { $0 &+ Int($1) }) { $0 &+ Int($1) })
          }
        }
      }
      let message = String(decoding: result.standardErrorContent, as: UTF8.self)
      #expect(message.contains("test: /") && message.contains("cut\\n.bin: cannot read it: it became shorter"))
    }

    @Test func `another bus error ends the process as a bus error`() async throws {
      await #expect(processExitsWith: .signal(SIGBUS)) {
        let folder = try TemporaryFolder()
        let path = try folder.write([UInt8](repeating: 7, count: 1 << 16), to: "a.bin")
        MappedFile.reportLostPages(program: "test")
        // Maps that are gone are forgotten.
        for _ in 0..<3 { try MappedFile(path: path).withBytes(in: 0..<10) { _ in } }
        let descriptor = open(path, O_RDONLY)
        guard let base = mmap(nil, 1 << 16, PROT_READ, MAP_SHARED, descriptor, 0), base != MAP_FAILED else { return }
        truncate(path, 0)
        print(UnsafeRawBufferPointer(start: base, count: 1 << 16).reduce(0) { $0 &+ Int($1) })
      }
    }
  #endif
}
