import ArgumentParser
import Checkpoints

/// What the tool starts itself with before it opens an HDF5 file.
struct ProbeHDF5: ParsableCommand {
  static let name = "probe-hdf5"
  static let configuration = CommandConfiguration(
    commandName: name, abstract: "Check whether libhdf5 crashes on the file at standard input.",
    shouldDisplay: false)

  func run() throws { try HDF5Probe.examineStandardInput() }
}
