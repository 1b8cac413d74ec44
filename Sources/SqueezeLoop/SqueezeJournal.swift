import Checkpoints
import Conversion
import Files
import FoundationEssentials
import Glibc
import Recipes

/// The record of a squeeze: JSON lines, the first what is squeezed and how, then one for every finished round, each on
/// the disk before the squeeze goes on. While a squeeze runs it holds a lock on the file.
public final class SqueezeJournal {
  /// The first line.
  public struct Header: Sendable, Equatable, Codable {
    /// What `format` says.
    public static let formatName = "mpo-squeeze-journal"
    /// Always `formatName`.
    public let format: String
    /// The version of the format.
    public let version: Int
    /// The program that began the squeeze, and its version.
    public let generator: String
    /// The model to begin with, as it was given.
    public let input: String
    /// Name, size and SHA-256 of the files of the model to begin with.
    public let files: [FileFingerprint]
    /// How far and how it is squeezed.
    public let options: SqueezeOptions
    /// Which matrices, and how they are split.
    public let selection: Selection

    /// What of the selection of tensors the result depends on.
    public struct Selection: Sendable, Equatable, Codable {
      /// Globs of `TensorSelection.include`.
      public let include: [String]
      /// Globs of `TensorSelection.exclude`.
      public let exclude: [String]
      /// The sites of a dense matrix that becomes an operator.
      public let sites: Int
      /// The shapes given by hand, as `GLOB=SHAPE`.
      public let shapes: [String]
      /// Whether kernels of convolutions are decomposed.
      public let convolutions: Bool

      /// What of a selection the result depends on.
      public init(_ selection: TensorSelection) {
        include = selection.include
        exclude = selection.exclude
        sites = selection.sites
        shapes = selection.shapes.map { "\($0.glob)=\($0.shape)" }
        convolutions = selection.convolutions
      }
    }

    /// The first line of a new journal.
    public init(
      generator: String, input: String, files: [FileFingerprint], options: SqueezeOptions, selection: Selection
    ) {
      format = Self.formatName
      version = 1
      self.generator = generator
      self.input = input
      self.files = files
      self.options = options
      self.selection = selection
    }

    /// What keeps a squeeze with `other` from going on with this one's; nil when nothing does.
    func difference(from other: Header) -> String? {
      if version != other.version || generator != other.generator {
        return "was written by \(escaped(generator)), and this is \(other.generator)"
      }
      if files.map(\.sha256) != other.files.map(\.sha256) {
        return "belongs to another input: the bytes of '\(escaped(input, limit: 4096))' have changed since then"
      }
      func bytes(_ globs: [String]) -> [TensorName] { globs.map { TensorName($0) } }
      let (a, b) = (options, other.options)
      let names: [(String, Bool)] = [
        ("--evaluate", a.evaluate == b.evaluate), ("--finetune", a.finetune == b.finetune),
        ("--max-drop or --min-score", a.limit == b.limit), ("--lower-is-better", a.lowerIsBetter == b.lowerIsBetter),
        ("--max-steps", a.maximumRounds == b.maximumRounds), ("--step", a.step == b.step),
        ("--min-step", a.minimumStep == b.minimumStep), ("--criterion", a.criterion == b.criterion),
        ("--tie", bytes(a.ties) == bytes(b.ties)), ("--min-bond", a.minimumBonds == b.minimumBonds),
        ("--dtype", a.coreDType == b.coreDType), ("--pack", a.packs == b.packs), ("--gauge", a.gauge == b.gauge),
        ("--include", bytes(selection.include) == bytes(other.selection.include)),
        ("--exclude", bytes(selection.exclude) == bytes(other.selection.exclude)),
        ("--sites", selection.sites == other.selection.sites),
        ("--shape", selection.shapes == other.selection.shapes),
        ("--convolutions", selection.convolutions == other.selection.convolutions),
      ]
      return names.first { !$0.1 }.map { "was begun with a different \($0.0)" }
    }
  }

  /// A finished round; round 0 is the model to begin with.
  public struct Round: Sendable, Equatable, Codable {
    /// The number of the round, from 0.
    public let round: Int
    /// Parameters that were to be saved; nil in round 0.
    public let step: Int?
    /// Parameters of the checkpoint that was evaluated.
    public let parameters: Int
    /// Those over the parameters of the dense model.
    public let ratio: Double
    /// Upper bound of the relative Frobenius error of what the round did to the matrices, before fine-tuning; nil in
    /// round 0.
    public let predictedError: Double?
    /// What the evaluate command printed.
    public let score: Double
    /// Whether the score is within the limit.
    public let accepted: Bool
    /// How long the round took, by the clock.
    public let seconds: Double
    /// The planned bonds of the matrices that the round changes.
    public let bonds: [TensorName: [Int]]
  }

  /// The last lines.
  struct Ending: Sendable, Equatable, Codable {
    /// Why no further round was tried.
    let finished: String
    /// Whether the output has its name.
    let published: Bool
  }

  let path: String
  private let descriptor: Int32
  private(set) var header: Header?
  private(set) var rounds: [Round] = []
  private(set) var ending: Ending?
  /// Bytes of whole lines.
  private var length = 0

  /// Opens or creates the journal and locks it; reads what is there. A last line that is not whole is of a process that
  /// was killed while it wrote, and does not count.
  ///
  /// - Throws: `SqueezeLoopError.journal` when another process has it, or when it is none.
  init(path: String) throws {
    self.path = path
    descriptor = try FileError.naming(path, "open it") { () throws(SystemError) in
      try Posix.open(path, O_RDWR | O_CREAT | O_NOCTTY | O_NONBLOCK)
    }
    guard Posix.lock(descriptor) else {
      throw SqueezeLoopError.journal(
        path: path, reason: "another squeeze is using it; wait for it to end, or give another output")
    }
    try read()
  }

  deinit {
    Posix.unlock(descriptor)
    Posix.close(descriptor)
  }

  /// The last round that was accepted.
  var lastAccepted: Round? { rounds.last { $0.accepted } }

  private func read() throws {
    guard let status = try FileStatus(at: path), status.kind == .file else { throw invalid("is not a regular file") }
    let file = try MappedFile(path: path)
    let content = try file.withBytes(in: 0..<file.byteCount) { Array($0) }
    let decoder = JSONDecoder()
    struct Format: Decodable { let format: String }
    let lines = content.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    for (index, line) in lines.dropLast().enumerated() {
      let data = Data(line)
      if index == 0 {
        guard let format = try? decoder.decode(Format.self, from: data), format.format == Header.formatName else {
          throw invalid("is not the journal of a squeeze; give another --journal")
        }
        guard let header = try? decoder.decode(Header.self, from: data) else {
          throw invalid("its first line is damaged; remove the journal to begin anew")
        }
        self.header = header
      } else if let round = try? decoder.decode(Round.self, from: data), round.round == rounds.count, ending == nil {
        rounds.append(round)
      } else if let ending = try? decoder.decode(Ending.self, from: data) {
        self.ending = ending
      } else {
        throw invalid("line \(index + 1) is damaged; remove the journal to begin anew")
      }
      length += line.count + 1
    }
    // A first line that is not whole is one of ours only if it begins as ours do.
    if lines.count == 1, !content.starts(with: Self.beginning.prefix(content.count)) {
      throw invalid("is not the journal of a squeeze; give another --journal")
    }
  }

  /// How the first line begins: members are in the order of their names.
  private static let beginning = Array("{\"files\":[".utf8)

  private func invalid(_ reason: String) -> SqueezeLoopError { .journal(path: path, reason: reason) }

  /// Forgets everything, and writes the first line.
  func begin(_ header: Header) throws {
    try cut(to: 0)
    (self.header, rounds, ending) = (nil, [], nil)
    try append(header)
    self.header = header
    flushParent(of: path)
  }

  func append(_ round: Round) throws {
    try append(round as any Encodable)
    rounds.append(round)
  }

  func append(_ ending: Ending) throws {
    try append(ending as any Encodable)
    self.ending = ending
  }

  /// Writes a line and waits until it is on the disk; after an error the line is not there.
  private func append(_ line: any Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let bytes = Array(try encoder.encode(line)) + [UInt8(ascii: "\n")]
    // What a killed process began to write.
    try cut(to: length)
    do {
      try bytes.withUnsafeBytes { line in
        try FileError.naming(path, "write it") { () throws(SystemError) in
          try Posix.write(line, to: descriptor, at: length)
        }
      }
      try FileError.naming(path, "flush it") { () throws(SystemError) in try Posix.synchronize(descriptor) }
    } catch {
      try? Posix.resize(descriptor, to: length)
      throw error
    }
    length += bytes.count
  }

  private func cut(to byteCount: Int) throws {
    try FileError.naming(path, "write it") { () throws(SystemError) in
      try Posix.resize(descriptor, to: byteCount)
    }
    length = byteCount
  }

  /// Removes the file of a squeeze that has nothing to go on with.
  func remove() { try? Posix.unlink(path) }
}

extension SqueezeJournal.Round {
  enum CodingKeys: String, CodingKey {
    case round, step, parameters, ratio, score, accepted, seconds, bonds
    case predictedError = "predicted_error"
  }

  /// The bonds of one matrix. They are a list in the journal: members of a JSON object can't have names that Unicode calls
  /// equivalent.
  private struct Change: Codable {
    let name: String
    let bonds: [Int]
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    round = try container.decode(Int.self, forKey: .round)
    step = try container.decodeIfPresent(Int.self, forKey: .step)
    parameters = try container.decode(Int.self, forKey: .parameters)
    ratio = try container.decode(Double.self, forKey: .ratio)
    predictedError = try container.decodeIfPresent(Double.self, forKey: .predictedError)
    score = try container.decode(Double.self, forKey: .score)
    accepted = try container.decode(Bool.self, forKey: .accepted)
    seconds = try container.decode(Double.self, forKey: .seconds)
    bonds = Dictionary(
      try container.decode([Change].self, forKey: .bonds).map { (TensorName($0.name), $0.bonds) },
      uniquingKeysWith: { first, _ in first })
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(round, forKey: .round)
    try container.encodeIfPresent(step, forKey: .step)
    try container.encode(parameters, forKey: .parameters)
    try container.encode(ratio, forKey: .ratio)
    try container.encodeIfPresent(predictedError, forKey: .predictedError)
    try container.encode(score, forKey: .score)
    try container.encode(accepted, forKey: .accepted)
    try container.encode(seconds, forKey: .seconds)
    try container.encode(
      bonds.sorted { $0.key < $1.key }.map { Change(name: $0.key.text, bonds: $0.value) }, forKey: .bonds)
  }
}
