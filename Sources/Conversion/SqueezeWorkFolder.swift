import Checkpoints
import Glibc

/// The folder beside the output that holds the checkpoints of a squeeze while it runs: `<output>.squeeze`. It is removed
/// when the output is there.
final class SqueezeWorkFolder {
  /// Absolute, for commands that run elsewhere.
  let path: String
  private let descriptor: Int32
  private static let prefix = "round-"

  /// Creates the folder, or takes the one of a squeeze that was ended, and locks it.
  /// - Throws: `SqueezeLoopError.workFolder` when another process has it, or something else is there.
  init(beside output: String) throws {
    let given = Self.path(beside: output)
    if mkdir(given, 0o777) != 0, errno != EEXIST { throw CheckpointError.system(given, "create it", errno) }
    descriptor = open(given, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else {
      throw SqueezeLoopError.workFolder(
        path: given, reason: "is in the way and no folder of a squeeze (\(systemReason(errno))); move it away")
    }
    path = try Self.absolute(given)
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      throw SqueezeLoopError.workFolder(
        path: given, reason: "another squeeze is at work in it; wait for it to end, or give another output")
    }
  }

  deinit {
    guard descriptor >= 0 else { return }
    // A process that is being started may have a copy of the descriptor, which would keep the lock.
    flock(descriptor, LOCK_UN)
    close(descriptor)
  }

  private static func absolute(_ path: String) throws -> String {
    guard let real = realpath(path, nil) else { throw CheckpointError.system(path, "look it up", errno) }
    defer { free(real) }
    return String(cString: real)
  }

  /// `<output>.squeeze`.
  static func path(beside output: String) -> String { trimmed(output) + ".squeeze" }

  /// The journal of an output where none is named: `<output>.squeeze.jsonl`.
  static func journalPath(beside output: String) -> String { path(beside: output) + ".jsonl" }

  private static func trimmed(_ path: String) -> String {
    var result = path
    while result.count > 1, result.hasSuffix("/") { result.removeLast() }
    return result
  }

  /// The checkpoint of a round: what is evaluated.
  func checkpoint(ofRound round: Int) -> String { path + "/" + Self.name(ofRound: round) }

  /// The checkpoint that is fine-tuned.
  func squeezed(inRound round: Int) -> String { "\(path)/\(Self.prefix)\(round).squeezed.mpo" }

  /// Where the fine-tuned checkpoint is to go: never the same path twice, as a command that outlives a killed squeeze may
  /// still be writing.
  func finetuned(inRound round: Int) -> String {
    "\(path)/\(Self.prefix)\(round).\(String(UInt64.random(in: 0...UInt64.max), radix: 36)).mpo"
  }

  private static func name(ofRound round: Int) -> String { "\(prefix)\(round).mpo" }

  /// Removes all that squeezes leave but the checkpoint of one round.
  func clean(keeping round: Int?) {
    let kept = round.map(Self.name)
    for name in (try? listFolder(at: path)) ?? []
    where name != kept && (name.hasPrefix(Self.prefix) || name.hasPrefix("." + Self.prefix)) {
      removeTree(at: path + "/" + name)
    }
  }

  /// Waits until the names in the folder are on the disk.
  func synchronize() throws {
    while fsync(descriptor) != 0 {
      let code = errno
      guard code == EINTR else { throw CheckpointError.system(path, "flush it", code) }
    }
  }

  /// Removes the folder; what others have put there stays.
  func remove() {
    clean(keeping: nil)
    rmdir(path)
  }
}
