import ArgumentParser
import Checkpoints
import Conversion
import Files
import Glibc

/// The command line: parsing and printing only.
@main
struct MPOTool: ParsableCommand {
  static let version = "0.1.0"
  static let generator = "mpo \(version)"

  static let configuration = CommandConfiguration(
    commandName: "mpo",
    abstract: "Turn a neural network's checkpoint into matrix product operators, and back.",
    discussion: """
      A dense checkpoint (safetensors or HDF5) flows one way: read, profile, plan, decompose, write. 'convert' does all \
      of it; 'profile' and 'plan' are its first stages alone. 'squeeze' goes on as long as your own evaluation allows.

      Results go to stdout, everything else to stderr. Exit status: 0 done; 1 the work failed; 3 a check did not hold \
      (verify, a maximum error that was not met, a model that is outside the limit of squeeze to begin with); 64 the command line was wrong; 128 + n ended by signal n.
      """,
    version: version,
    subcommands: [
      Convert.self, Profile.self, Plan.self, Merge.self, Squeeze.self, Inspect.self, Restore.self, Verify.self,
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
        StandardError.write("mpo: \(AtomicOutput.withFinalNames(Failure.text(of: error)))\n")
        Glibc.exit(Failure.status(of: error))
      }
    } catch {
      exit(withError: error)
    }
  }
}
