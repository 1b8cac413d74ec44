import Foundation
import TestSupport
import Testing

@testable import Files

@Suite struct AtomicOutputTests {
  let folder: TemporaryFolder
  let path: String

  init() throws {
    folder = try TemporaryFolder()
    path = folder.path + "/out"
  }

  private func text(_ name: String = "out") throws -> String {
    try String(contentsOfFile: folder.path + "/" + name, encoding: .utf8)
  }

  private func write(_ text: String, to path: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path))
  }

  @Test func `a file appears when it is committed`() throws {
    let output = try AtomicOutput(at: path, kind: .file, replacing: false)
    try write("new", to: output.temporaryPath)
    let temporary = (output.temporaryPath as NSString).lastPathComponent
    #expect(try folder.names == [temporary])
    #expect(temporary.hasPrefix(".out.") && temporary.hasSuffix(".partial"))
    try output.commit()
    #expect(try folder.names == ["out"])
    #expect(try text() == "new")
    output.discard()
    #expect(try text() == "new")
    #expect(throws: FileError.self) { try output.commit() }
  }

  @Test func `a folder appears when it is committed`() throws {
    let output = try AtomicOutput(at: path + "//", kind: .folder, replacing: false)
    try FileManager.default.createDirectory(atPath: output.temporaryPath + "/a", withIntermediateDirectories: false)
    try write("new", to: output.temporaryPath + "/a/b")
    try output.commit()
    #expect(try folder.names == ["out"])
    #expect(try text("out/a/b") == "new")
  }

  @Test(arguments: [AtomicOutput.Kind.file, .folder])
  func `nothing is left when it is discarded or forgotten`(kind: AtomicOutput.Kind) throws {
    let output = try AtomicOutput(at: path, kind: kind, replacing: false)
    if kind == .folder {
      try FileManager.default.createDirectory(atPath: output.temporaryPath + "/a/b", withIntermediateDirectories: true)
      try write("x", to: output.temporaryPath + "/a/b/c")
    }
    output.discard()
    #expect(try folder.names == [])
    #expect(throws: FileError.self) { try output.commit() }
    do { _ = try AtomicOutput(at: path, kind: kind, replacing: false) }
    #expect(try folder.names == [])
  }

  @Test func `an output that is there is not overwritten`() throws {
    try folder.write("old", to: "out")
    #expect(throws: FileError.outputExists(path: path)) {
      try AtomicOutput(at: path, kind: .file, replacing: false)
    }
    #expect(throws: FileError.outputExists(path: path)) {
      try AtomicOutput(at: path, kind: .folder, replacing: false)
    }
    #expect(try folder.names == ["out"])
  }

  @Test(arguments: [AtomicOutput.Kind.file, .folder])
  func `an output that appears meanwhile is not overwritten`(kind: AtomicOutput.Kind) throws {
    let output = try AtomicOutput(at: path, kind: kind, replacing: false)
    if kind == .file {
      try folder.write("other", to: "out")
    } else {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }
    #expect(throws: FileError.outputExists(path: path)) { try output.commit() }
    #expect(try folder.names == ["out"])
  }

  @Test func `an old file is replaced on request`() throws {
    try folder.write("old", to: "out")
    let output = try AtomicOutput(at: path, kind: .file, replacing: true)
    try write("new", to: output.temporaryPath)
    #expect(try text() == "old")
    try output.commit()
    #expect(try folder.names == ["out"])
    #expect(try text() == "new")
    let missing = try AtomicOutput(at: folder.path + "/fresh", kind: .file, replacing: true)
    try missing.commit()
    #expect(try text("fresh") == "")
  }

  @Test func `a folder is replaced on request unless it is refused`() throws {
    try folder.write("old", to: "out/deep/er")
    try folder.write("precious", to: "precious/thesis.tex")
    let output = try AtomicOutput(at: path, kind: .folder, replacing: true)
    try write("new", to: output.temporaryPath + "/a")
    try output.commit()
    #expect(try FileManager.default.contentsOfDirectory(atPath: path) == ["a"])
    let refused = folder.path + "/precious"
    #expect(throws: FileError.outputNotReplaceable(path: refused, reason: "has thesis.tex")) {
      try AtomicOutput(at: refused, kind: .folder, replacing: true) { path, names in
        path == refused ? "has \(names.joined())" : nil
      }
    }
    #expect(try folder.names == ["out", "precious"])
  }

  @Test func `what a killed process left is swept, what a living one holds is not`() throws {
    try folder.write("stale", to: ".out.0123456789abcdef.partial")
    try folder.write("stale", to: ".out.fedcba9876543210.partial/a/b")
    let others = [".out.0123456789abcde.partial", ".out.0123456789abcdeg.partial", ".other.0123456789abcdef.partial"]
    for name in others { try folder.write("not ours", to: name) }
    let living = try AtomicOutput(at: path, kind: .file, replacing: false)
    let second = try AtomicOutput(at: path, kind: .folder, replacing: false)
    let temporaries = [living, second].map { ($0.temporaryPath as NSString).lastPathComponent }
    #expect(try folder.names == (others + temporaries).sorted())
    try write("first", to: living.temporaryPath)
    try living.commit()
    #expect(throws: FileError.outputExists(path: path)) { try second.commit() }
    #expect(try text() == "first")
    #expect(try folder.names == (others + ["out"]).sorted())
  }

  @Test func `all outputs of the process are discarded at once`() throws {
    let registry = AtomicOutput.Registry()
    func output(_ name: String, _ kind: AtomicOutput.Kind) throws -> AtomicOutput {
      try AtomicOutput(at: folder.path + "/" + name, kind: kind, replacing: false, registry: registry)
    }
    let done = try output("done", .file)
    try done.commit()
    let open = [try output("a", .file), try output("b", .folder)]
    try write("x", to: open[1].temporaryPath + "/x")
    registry.discardAll()
    #expect(try folder.names == ["done"])
    for output in open { #expect(throws: FileError.self) { try output.commit() } }
    #expect(message { try output("c", .file) }?.contains("interrupted") == true)
    #expect(try folder.names == ["done"])
  }

  @Test func `bad places are refused in one line`() throws {
    func refusal(_ path: String, replacing: Bool = false) -> String? {
      message { try AtomicOutput(at: path, kind: .folder, replacing: replacing) }
    }
    #expect(refusal(folder.path + "/no/out")?.contains("there is no folder") == true)
    try folder.write("", to: "file")
    #expect(refusal(folder.path + "/file/out")?.contains("is not a folder") == true)
    for path in ["", ".", "..", "a/..", "/"] { #expect(refusal(path)?.contains("can't have this name") == true) }
    #expect(refusal("/proc/out")?.contains("cannot create it") == true)
    #expect(
      refusal(FileManager.default.currentDirectoryPath, replacing: true)?.contains("the working directory is in it")
        == true)
    #expect(refusal(folder.path + "/" + String(repeating: "x", count: 250))?.contains("name too long") == true)
  }

  @Test func `a relative path is beside the working directory's files`() throws {
    let name = "relative-\(UUID().uuidString)"
    let output = try AtomicOutput(at: name, kind: .file, replacing: false)
    defer { output.discard() }
    #expect(output.temporaryPath.hasPrefix("./.\(name)."))
    #expect(FileManager.default.fileExists(atPath: output.temporaryPath))
  }
}

extension AtomicOutput {
  /// One that may replace any folder.
  fileprivate convenience init(at path: String, kind: Kind, replacing: Bool, registry: Registry = Registry()) throws {
    try self.init(at: path, kind: kind, replacing: replacing, registry: registry) { _, _ in nil }
  }
}
