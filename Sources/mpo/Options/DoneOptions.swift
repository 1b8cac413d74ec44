import ArgumentParser
import Checkpoints
import Files

/// The option of the stages that may be run again: on a cluster a task is, after a node failed.
struct DoneOptions: ParsableArguments {
  @Flag(
    help:
      "Do nothing if the output is complete, has the same options and is newer than the input; otherwise replace it."
  )
  var skipDone = false

  /// Whether an output is there, is newer than its inputs and is what `isSame` asks for.
  func isDone(_ output: String, inputs: [String], _ isSame: () throws -> Bool) throws -> Bool {
    guard skipDone, let status = try FileStatus(at: output), try isNewer(status, than: inputs) else { return false }
    // What can't be read is not an output of the stage: it is made again.
    guard (try? isSame()) == true else { return false }
    StandardError.write(
      "mpo: \(escaped(output, limit: 4096)) exists and has the same recipe; nothing to do\n")
    return true
  }

  private func isNewer(_ status: FileStatus, than inputs: [String]) throws -> Bool {
    try inputs.allSatisfy { try FileStatus(at: $0).map { $0.modified <= status.modified } ?? false }
  }
}

extension DenseCheckpoint {
  /// Everything that a conversion reads of it.
  var inputFiles: [String] { files + (folder.map { folder in companions.map { folder + "/" + $0 } } ?? []) }
}
