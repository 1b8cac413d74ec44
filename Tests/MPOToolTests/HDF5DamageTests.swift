import Checkpoints
import Foundation
import TestSupport
import Testing

/// Damaged HDF5 files, which can crash libhdf5 itself: in the process that looks at them first.
@Suite(.serialized) struct HDF5DamageTests {
  @Test(arguments: ["structure.h5", "layouts.h5", "latest.h5", "keras_legacy.h5", "references.h5"])
  func `no damage makes the tool crash`(_ name: String) throws {
    let temporary = try TemporaryFolder()
    let whole = Array(try Data(contentsOf: URL(filePath: fixtures + "/hdf5/" + name)))
    var random = SeededGenerator(seed: 17)
    for _ in 0..<40 {
      var file = whole
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        file[Int.random(in: 0..<file.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      let path = try temporary.write(file, to: "x.h5")
      let result = try Tool.run("convert", path, "-o", temporary.path + "/x.mpo", "--lossless", "--force")
      if result.status != 0 { expectFailure(result, temporary.path) }
    }
  }

  @Test func `a file on which the other process crashes, grows or does not end is refused by name`() throws {
    let path = fixtures + "/hdf5/structure.h5"
    func reason() -> String? {
      do {
        _ = try HDF5Checkpoint(path: path)
        return nil
      } catch { return "\(error)" }
    }
    defer { HDF5Probe.use(program: Tool.path, arguments: ["probe-hdf5"]) }
    HDF5Probe.use(program: "/bin/sh", arguments: ["-c", "kill -SEGV $$"])
    #expect(
      reason()
        == "\(path): is not a valid HDF5 file: libhdf5 crashes on it (signal 11); it is damaged, or made to do harm"
    )
    HDF5Probe.use(program: "/bin/sh", arguments: ["-c", "sleep 1000"], timeLimit: .milliseconds(50))
    #expect(reason()?.contains("does not finish") == true)
    HDF5Probe.use(program: "/usr/bin/perl", arguments: ["-e", "$x .= 'x' x 10000000 while 1"])
    #expect(reason()?.contains("takes more than 1024 MB of memory") == true)
    HDF5Probe.use(program: "/bin/sh", arguments: ["-c", "exit 1"])
    #expect(reason() == nil)
    HDF5Probe.use(program: "/no/such/program", arguments: [])
    #expect(reason() == nil)
  }
}
