import Checkpoints
import TestSupport
import Testing

/// Damaged HDF5 files can crash libhdf5 itself: another process looks at them first. tools/fuzz makes such files.
@Suite struct HDF5ProbeTests {
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
