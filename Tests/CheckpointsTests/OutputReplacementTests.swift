import Files
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct OutputReplacementTests {
  let folder: TemporaryFolder
  let path: String

  init() throws {
    folder = try TemporaryFolder()
    path = folder.path + "/out"
  }

  private func text(_ name: String) throws -> String {
    try String(contentsOfFile: folder.path + "/" + name, encoding: .utf8)
  }

  private func write(_ text: String, to path: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path))
  }

  @Test(arguments: ["empty", "model", "mpo", "none"])
  func `an old folder of ours is replaced on request`(content: String) throws {
    switch content {
    case "empty": try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    case "model": try folder.write("", to: "out/model-00001-of-00002.safetensors")
    case "mpo":
      try folder.write(#"{"format":"mpo","tensors":[{"a":"b"}]}"#, to: "out/manifest.json")
      try folder.write("", to: "out/deep/er")
    default: break
    }
    let output = try AtomicOutput(at: path, kind: .folder, replacing: true)
    try write("new", to: output.temporaryPath + "/a")
    try output.commit()
    #expect(try folder.names == ["out"])
    #expect(try FileManager.default.contentsOfDirectory(atPath: path) == ["a"])
  }

  @Test func `a folder of something else is never replaced`() throws {
    try folder.write("precious", to: "out/thesis.tex")
    guard
      case .outputNotReplaceable = #expect(
        throws: FileError.self,
        performing: {
          try AtomicOutput(at: path, kind: .folder, replacing: true)
        })
    else {
      Issue.record("replaced")
      return
    }
    #expect(message { try AtomicOutput(at: path, kind: .file, replacing: true) }?.contains("it is a folder") == true)
    try folder.write(#"{"format":"webapp"}"#, to: "out/manifest.json")
    #expect(throws: FileError.self) { try AtomicOutput(at: path, kind: .folder, replacing: true) }
    try folder.write("", to: "file")
    #expect(
      message { try AtomicOutput(at: folder.path + "/file", kind: .folder, replacing: true) }?.contains("it is a file")
        == true)
    // One that turns precious while the new one is written.
    let late = folder.path + "/late"
    let output = try AtomicOutput(at: late, kind: .folder, replacing: true)
    try folder.write("precious", to: "late/thesis.tex")
    #expect(throws: FileError.self) { try output.commit() }
    #expect(try text("late/thesis.tex") == "precious")
    #expect(try folder.names == ["file", "late", "out"])
  }
}
