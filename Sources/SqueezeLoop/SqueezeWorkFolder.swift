import Checkpoints
import Files
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
    do {
      try Posix.makeFolder(given)
    } catch {
      if error.code != EEXIST { throw FileError.system(given, "create it", error) }
    }
    do {
      descriptor = try Posix.open(given, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    } catch {
      throw SqueezeLoopError.workFolder(
        path: given,
        reason: "exists and is not the folder of a squeeze (\(SystemError.reason(error.code))); move it away")
    }
    path = try realPath(of: given)
    guard Posix.lock(descriptor) else {
      throw SqueezeLoopError.workFolder(
        path: given, reason: "another squeeze is using it; wait for it to end, or give another output")
    }
  }

  deinit {
    Posix.unlock(descriptor)
    Posix.close(descriptor)
  }

  /// `<output>.squeeze`.
  static func path(beside output: String) -> String { withoutTrailingSlashes(output) + ".squeeze" }

  /// The journal of an output where none is named: `<output>.squeeze.jsonl`.
  static func journalPath(beside output: String) -> String { path(beside: output) + ".jsonl" }

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
    try FileError.naming(path, "flush it") { () throws(SystemError) in try Posix.synchronize(descriptor) }
  }

  /// Removes the folder; what others have put there stays.
  func remove() {
    clean(keeping: nil)
    try? Posix.removeFolder(path)
  }
}
