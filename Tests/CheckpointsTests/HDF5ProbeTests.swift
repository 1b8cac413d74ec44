import Foundation
import TestSupport
import Testing

@testable import Checkpoints

/// Damaged HDF5 files can crash libhdf5 itself: another process looks at them first. tools/fuzz makes such files.
@Suite struct HDF5ProbeTests {
  @Test func `a file on which the other process crashes, grows or does not end is refused by name`() throws {
    let path = fixtures + "/hdf5/structure.h5"
    let file = try #require(FileHandle(forReadingAtPath: path))
    func reason(_ program: HDF5Probe.Program) -> String? {
      do {
        try HDF5Probe.check(file.fileDescriptor, path: path, by: program)
        return nil
      } catch { return "\(error)" }
    }
    #expect(
      reason(.init(path: "/bin/sh", arguments: ["-c", "kill -SEGV $$"]))
        == "\(path): is not a valid HDF5 file: libhdf5 crashes on it (signal 11); the file is damaged or malicious"
    )
    let endless = HDF5Probe.Program(path: "/bin/sh", arguments: ["-c", "sleep 1000"], timeLimit: .milliseconds(50))
    #expect(reason(endless)?.contains("does not finish") == true)
    let growing = HDF5Probe.Program(path: "/usr/bin/perl", arguments: ["-e", "$x .= 'x' x 10000000 while 1"])
    #expect(reason(growing)?.contains("takes more than 1024 MB of memory") == true)
    #expect(reason(.init(path: "/bin/sh", arguments: ["-c", "exit 1"])) == nil)
    #expect(reason(.init(path: "/no/such/program", arguments: [])) == nil)
  }
}
