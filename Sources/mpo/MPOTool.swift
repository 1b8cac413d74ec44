import ArgumentParser
import Checkpoints
import Conversion
import Files
import Glibc

/// The command line: parsing and printing only.
@main
struct MPOTool: ParsableCommand {
  static let version = "0.2.0"
  static let generator = "mpo \(version)"

  static let configuration = CommandConfiguration(
    commandName: "mpo",
    abstract: "Turn a neural network's checkpoint into matrix product operators, and back.",
    discussion: """
      'convert' reads a dense checkpoint (safetensors or HDF5), profiles its matrices, plans the bonds, decomposes and \
      writes; 'profile' and 'plan' are the first stages alone. 'squeeze' lowers bonds as far as your own evaluation allows. \
      'restore' makes a dense checkpoint again.

      Results go to stdout, everything else to stderr. Exit status: 0 done; 1 the work failed; 3 a check failed (verify \
      found a problem, the result misses --max-error, or the input of squeeze is already outside the limit); 64 the \
      command line was wrong; 128 + n ended by signal n.
      """,
    version: version,
    subcommands: [
      Convert.self, Profile.self, Plan.self, Merge.self, Squeeze.self, Adapt.self, Inspect.self, Report.self,
      Restore.self,
      Verify.self,
      ProbeHDF5.self,
    ])

  static func main() {
    Interruption.cleanUpOnSignals()
    HDF5Probe.use(program: "/proc/self/exe", arguments: [ProbeHDF5.name])
    do {
      var command = try parseAsRoot()
      do {
        try command.run()
      } catch  where Failure.isOwn(error) {
        Interruption.waitIfCleaningUp()
        StandardError.write("mpo: \(AtomicOutput.withFinalNames(Failure.message(of: error)))\n")
        Glibc.exit(Failure.status(of: error))
      }
    } catch {
      exit(withError: error)
    }
  }
}
