import Foundation
import TestSupport
import Testing

/// The same input and options give the same bytes.
@Suite struct DeterminismTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"

  init() throws { temporary = try TemporaryFolder() }

  private func content(of path: String) throws -> [String: Data] {
    var result = ["": FileManager.default.contents(atPath: path)].compactMapValues(\.self)
    for name in (try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? [] {
      result[name] = FileManager.default.contents(atPath: path + "/" + name)
    }
    return result
  }

  @Test(arguments: [
    ["--ratio", "0.5"], ["--ratio", "0.6", "--structure", "auto", "--pack", "--central", "int8"],
    ["--lossless", "--pack"], ["--max-error", "0.3", "--structure", "svd", "--dtype", "bf16"],
  ])
  func `a conversion gives the same bytes in every run and with any number of jobs`(options: [String]) throws {
    var expected: [String: Data]?
    for (run, jobs) in ["1", "1", "2", "3", "8"].enumerated() {
      let output = "\(temporary.path)/\(run).mpo"
      let arguments = ["convert", bert, "-o", output, "--jobs", jobs] + options
      #expect(try Tool.Run(arguments).finish().status == 0)
      let found = try content(of: output)
      #expect(found == expected ?? found, "--jobs \(jobs)")
      expected = found
    }
  }

  @Test func `profiles and restored models do not depend on the number of jobs`() throws {
    let checkpoint = temporary.path + "/a.mpo"
    #expect(try Tool.run("convert", bert, "-o", checkpoint, "--ratio", "0.5", "--pack").status == 0)
    var profiles: Set<Data> = []
    var models: Set<[String: Data]> = []
    for jobs in ["1", "2", "5"] {
      let profile = "\(temporary.path)/\(jobs).json"
      #expect(try Tool.run("profile", bert, "-o", profile, "--jobs", jobs).status == 0)
      profiles.insert(try Data(contentsOf: URL(filePath: profile)))
      let model = "\(temporary.path)/\(jobs)"
      #expect(try Tool.run("restore", checkpoint, "-o", model, "--jobs", jobs).status == 0)
      models.insert(try content(of: model))
    }
    #expect(profiles.count == 1 && models.count == 1)
  }
}
