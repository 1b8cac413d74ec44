import Checkpoints
import Conversion
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes

/// Dimension squeezing with the performance of the network in the loop (arXiv 2106.02205, algorithm 2): lower the bonds
/// that cost least, fine-tune, measure, keep or roll back; fine-tuning and measuring are commands of the user.
///
/// Every finished round is in a journal, and the checkpoint that was accepted last is in a folder beside the output, so
/// that a squeeze that was ended at any moment goes on as if it had not been. With commands that do the same each time the
/// result is the same, bit for bit.
public struct SqueezeLoop: Sendable {
  /// How far and how it is squeezed.
  public var options: SqueezeOptions
  /// Which matrices; the sites of dense ones.
  public var selection = TensorSelection()
  /// For each run of a command.
  public var timeout: Duration?
  /// Matrices that are worked on at the same time.
  public var jobs: Int
  /// What manifest and journal say has written them.
  public var generator: String
  /// Whether links may lead out of the folder of a dense model.
  public var followsLinks = false

  /// A loop over all matrices that are decomposed by default, without a timeout.
  public init(options: SqueezeOptions, jobs: Int, generator: String) {
    self.options = options
    self.jobs = jobs
    self.generator = generator
  }

  /// What happens on the way.
  public enum Event: Sendable {
    /// What the user should know although the work goes on.
    case warning(String)
    /// Rounds of an earlier run.
    case resumed([SqueezeJournal.Round])
    /// A round is finished, and in the journal.
    case round(SqueezeJournal.Round)
    /// An error ends the squeeze; the model accepted last, of that round, is kept.
    case stopped(round: SqueezeJournal.Round, keptAt: String)
  }

  /// What a squeeze came to.
  public struct Result: Sendable {
    /// All rounds, round 0 first.
    public let rounds: [SqueezeJournal.Round]
    /// The round whose model is the output.
    public let accepted: SqueezeJournal.Round
    /// Why no further round was tried.
    public let reason: String
  }

  /// The default path of the journal.
  public static func journalPath(of output: String) -> String { SqueezeWorkFolder.journalPath(beside: output) }

  /// Squeezes.
  ///
  /// - Parameters:
  ///   - input: an MPO checkpoint or a dense one.
  ///   - output: the MPO checkpoint to write: the smallest that was accepted.
  ///   - journalPath: its path; nil for `journalPath(of: output)`.
  ///   - resuming: go on with what the journal holds; begin where there is none.
  ///   - replacing: replace an output that is there already, and the journal of a squeeze that is done.
  ///   - events: called with what happens on the way.
  /// - Throws: `SqueezeLoopError`, `ConversionError`, `SqueezeError`, and the errors of reading and writing. The model
  ///   accepted last is kept then, and `resuming` goes on from there.
  public func run(
    _ input: String, to output: String, journal journalPath: String? = nil, resuming: Bool = false,
    replacing: Bool = false, events: @escaping (Event) -> Void = { _ in }
  ) throws -> Result {
    BLASThreads.use(1)
    let source = try SqueezeSource(
      path: input, selection: selection, options: options, followingLinks: followsLinks, jobs: jobs)
    let header = SqueezeJournal.Header(
      generator: generator, input: input, files: source.files, options: options,
      selection: SqueezeJournal.Header.Selection(selection))
    // If the output can't be written, fail now and not after hours of work.
    let isThere = try FileStatus(at: output, followingLinks: false) != nil
    try AtomicOutput(at: output, kind: .folder, replacing: replacing || (resuming && isThere)).discard()

    let journal = try SqueezeJournal(path: journalPath ?? Self.journalPath(of: output))
    let folder: SqueezeWorkFolder
    let isNew: Bool
    do {
      isNew = try self.isNew(journal, header, resuming: resuming, replacing: replacing, outputIsThere: isThere)
      if isThere, !replacing, isNew || journal.ending == nil { throw FileError.outputExists(path: output) }
      folder = try SqueezeWorkFolder(beside: output)
    } catch {
      if journal.header == nil { journal.remove() }
      throw error
    }
    if isNew {
      folder.clean(keeping: nil)
      try journal.begin(header)
      for warning in source.warnings { events(.warning(warning)) }
    } else {
      folder.clean(keeping: journal.lastAccepted?.round)
      events(.resumed(journal.rounds))
    }
    let run = SqueezeRun(self, source: source, journal: journal, folder: folder, events: events)
    do {
      let result = try run.squeeze()
      try run.publish(at: output, replacing: replacing, result)
      return result
    } catch {
      if let accepted = journal.lastAccepted {
        folder.clean(keeping: accepted.round)
        events(.stopped(round: accepted, keptAt: folder.checkpoint(ofRound: accepted.round)))
      } else {
        folder.remove()
        journal.remove()
      }
      throw error
    }
  }

  /// Whether the squeeze begins anew: a journal with no finished round holds nothing to go on with.
  private func isNew(
    _ journal: SqueezeJournal, _ header: SqueezeJournal.Header, resuming: Bool, replacing: Bool, outputIsThere: Bool
  ) throws -> Bool {
    guard let found = journal.header, !journal.rounds.isEmpty else { return true }
    if resuming {
      guard let difference = found.difference(from: header) else {
        if journal.ending?.published == true, !outputIsThere {
          throw SqueezeLoopError.journal(
            path: journal.path,
            reason: "says that the squeeze is done, but its output is gone; remove the journal to begin anew")
        }
        return false
      }
      throw SqueezeLoopError.journal(
        path: journal.path,
        reason: difference + "; give the same options as before, or remove the journal to begin anew")
    }
    if journal.ending?.published == true { return true }
    throw SqueezeLoopError.journal(
      path: journal.path,
      reason:
        "holds \(journal.rounds.count) rounds of an unfinished squeeze; continue it with --resume, or remove the "
        + "journal to begin anew")
  }
}
