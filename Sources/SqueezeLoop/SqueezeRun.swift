import Checkpoints
import Conversion
import Files
import Glibc
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

/// A squeeze that is at work.
final class SqueezeRun {
  private let loop: SqueezeLoop
  private let source: SqueezeSource
  private let journal: SqueezeJournal
  private let folder: SqueezeWorkFolder
  private let events: (SqueezeLoop.Event) -> Void
  private let candidates: [TensorName: SqueezeCandidate]
  /// Profiles that still hold: without fine-tuning a matrix changes with its bonds only.
  private var profiles: [TensorName: (bonds: [Int]?, profile: LayerProfile)] = [:]
  private var warned: Set<TensorName> = []
  private var roundBegin = ContinuousClock.now

  private var options: SqueezeOptions { loop.options }

  init(
    _ loop: SqueezeLoop, source: SqueezeSource, journal: SqueezeJournal, folder: SqueezeWorkFolder,
    events: @escaping (SqueezeLoop.Event) -> Void
  ) {
    self.loop = loop
    self.source = source
    self.journal = journal
    self.folder = folder
    self.events = events
    candidates = Dictionary(
      source.candidates.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// Runs rounds until one of the reasons to stop.
  func squeeze() throws -> SqueezeLoop.Result {
    if let ending = journal.ending { return try result(ending.finished) }
    let baseline = try journal.rounds.first ?? measureBaseline()
    let worst = options.worstScore(baseline: baseline.score)
    let steps = options.steps(parameters: baseline.parameters)
    var current = try openAccepted()
    var network = try network(of: current)
    var rejected = rejectedPlans()
    var step: Int? = steps.first
    if let last = journal.rounds.last, let lastStep = last.step {
      step = last.accepted ? lastStep : Self.step(after: lastStep, smallest: steps.smallest)
    }

    while true {
      guard let wanted = step else { return try finish("the smallest step was rejected") }
      if let maximum = options.maximumRounds, journal.rounds.count - 1 >= maximum {
        return try finish("\(maximum) \(maximum == 1 ? "round is" : "rounds are") done")
      }
      guard let plan = network.plan(saving: wanted) else { return try finish("no bond can be lowered further") }
      let changes = Self.changes(network, plan)
      // A large step may be a single bond, which a smaller step would lower as well.
      if rejected.contains(changes) {
        step = Self.step(after: wanted, smallest: steps.smallest)
        continue
      }
      let round = try round(from: current, step: wanted, plan, changes, worst: worst)
      if round.accepted {
        current = try openAccepted()
        network = try self.network(of: current)
        rejected = []
      } else {
        rejected.append(changes)
        step = Self.step(after: wanted, smallest: steps.smallest)
      }
    }
  }

  /// The next step when one was rejected; nil when it was the smallest.
  private static func step(after rejected: Int, smallest: Int) -> Int? {
    rejected > smallest ? max(smallest, rejected / 2) : nil
  }

  private func rejectedPlans() -> [[TensorName: [Int]]] {
    journal.rounds.reversed().prefix { !$0.accepted }.map(\.bonds)
  }

  private func finish(_ reason: String) throws -> SqueezeLoop.Result {
    try journal.append(SqueezeJournal.Ending(finished: reason, published: false))
    return try result(reason)
  }

  private func result(_ reason: String) throws -> SqueezeLoop.Result {
    guard let accepted = journal.lastAccepted else {
      throw SqueezeLoopError.journal(path: journal.path, reason: "has no accepted round; remove it to begin anew")
    }
    return SqueezeLoop.Result(rounds: journal.rounds, accepted: accepted, reason: reason)
  }

  // MARK: - The network

  private func openAccepted() throws -> MPOCheckpoint {
    let round = journal.lastAccepted?.round ?? 0
    do {
      let checkpoint = try MPOCheckpoint(path: folder.checkpoint(ofRound: round))
      if let damaged = try checkpoint.damagedFiles().first { throw damaged }
      return checkpoint
    } catch let error as MPOCheckpointError {
      throw SqueezeLoopError.workFolder(
        path: folder.path,
        reason:
          "the checkpoint of round \(round) changed since it was written (\(error)); remove the journal to begin anew")
    }
  }

  private func network(of checkpoint: MPOCheckpoint) throws -> SqueezeRound {
    if options.finetune != nil { profiles = [:] }
    let all = source.candidates
    let due = all.indices.filter { index in
      profiles[TensorName(all[index].name)].map {
        $0.bonds != checkpoint.contents.operator(named: all[index].name)?.bonds
      } ?? true
    }
    let found = ParallelResults<LayerProfile>(count: all.count)
    let largestFirst = due.sorted {
      (all[$1].rows * all[$1].columns, $0) < (all[$0].rows * all[$0].columns, $1)
    }
    try forEachInParallel(largestFirst, jobs: loop.jobs) { found[$0] = try checkpoint.profile(of: all[$0]) }
    for index in due {
      let bonds = checkpoint.contents.operator(named: all[index].name)?.bonds
      if let profile = found[index] {
        profiles[TensorName(all[index].name)] = (bonds, profile)
      } else {
        profiles[TensorName(all[index].name)] = nil
        if warned.insert(TensorName(all[index].name)).inserted {
          events(.warning("tensor '\(escaped(all[index].name))' has NaN, infinite or huge elements; it stays dense"))
        }
      }
    }
    let layers = all.compactMap { candidate in
      profiles[TensorName(candidate.name)].map {
        SqueezeRound.Layer(
          profile: $0.profile, bonds: $0.bonds, minimumBond: options.minimumBond(for: candidate.name))
      }
    }
    let ties = options.ties.map { glob in layers.indices.filter { matches(glob, layers[$0].profile.name) } }
    // Operators of several gauges are counted in that of the first.
    let gauge = options.gauge ?? checkpoint.contents.operators.first?.gauge ?? .compact
    return try SqueezeRound(layers, ties: ties, criterion: options.criterion, gauge: gauge)
  }

  /// The bonds of the matrices that a plan changes.
  private static func changes(_ network: SqueezeRound, _ plan: SqueezeRound.Plan) -> [TensorName: [Int]] {
    var changes: [TensorName: [Int]] = [:]
    for (layer, bonds) in zip(network.layers, plan.bonds) {
      if let bonds, bonds != layer.bonds { changes[TensorName(layer.profile.name)] = bonds }
    }
    return changes
  }

  // MARK: - Rounds

  private func measureBaseline() throws -> SqueezeJournal.Round {
    let path = folder.checkpoint(ofRound: 0)
    let output = try AtomicOutput(at: path, kind: .folder, replacing: false)
    try source.write(to: output.temporaryPath, generator: loop.generator, jobs: loop.jobs)
    try output.commit()
    let checkpoint = try MPOCheckpoint(path: path)
    let score = try score(of: checkpoint, round: 0)
    let worst = options.worstScore(baseline: score)
    guard options.accepts(score, worst: worst) else {
      throw SqueezeLoopError.baselineOutsideLimit(score: score, limit: worst)
    }
    return try record(
      0, of: checkpoint, step: nil, predictedError: nil, score: score, accepted: true, bonds: [:])
  }

  private func round(
    from current: MPOCheckpoint, step: Int, _ plan: SqueezeRound.Plan, _ changes: [TensorName: [Int]], worst: Double
  ) throws -> SqueezeJournal.Round {
    let number = journal.rounds.count
    let previous = journal.lastAccepted?.round
    let path = folder.checkpoint(ofRound: number)
    let squeezedPath = options.finetune == nil ? path : folder.squeezed(inRound: number)

    let squeezed = SqueezedCheckpoint(
      current, bonds: changes, candidates: candidates, coreDType: options.coreDType, gauge: options.gauge,
      keepsErrors: options.finetune == nil)
    let output = try AtomicOutput(at: squeezedPath, kind: .folder, replacing: false)
    try squeezed.write(to: output.temporaryPath, jobs: loop.jobs) { try source.finish($0, generator: loop.generator) }
    try output.commit()
    if let command = options.finetune {
      try finetune(with: command, squeezedPath, round: number, to: path)
      removeTree(at: squeezedPath)
    }

    let checkpoint = try MPOCheckpoint(path: path)
    let score = try score(of: checkpoint, round: number)
    let round = try record(
      number, of: checkpoint, step: step, predictedError: plan.relativeErrorBound, score: score,
      accepted: options.accepts(score, worst: worst), bonds: changes)
    if !round.accepted {
      removeTree(at: path)
    } else if let previous {
      removeTree(at: folder.checkpoint(ofRound: previous))
    }
    return round
  }

  /// Appends a finished round to the journal.
  private func record(
    _ number: Int, of checkpoint: MPOCheckpoint, step: Int?, predictedError: Double?, score: Double, accepted: Bool,
    bonds: [TensorName: [Int]]
  ) throws -> SqueezeJournal.Round {
    try folder.synchronize()
    let now = ContinuousClock.now
    let duration = (now - roundBegin).components
    roundBegin = now
    let seconds = Double(duration.seconds) + Double(duration.attoseconds) * 1e-18
    let totals = checkpoint.manifest.totals
    let round = SqueezeJournal.Round(
      round: number, step: step, parameters: totals.parametersStored, ratio: totals.ratio,
      predictedError: predictedError, score: score, accepted: accepted,
      seconds: (seconds * 1e3).rounded() / 1e3, bonds: bonds)
    try journal.append(round)
    events(.round(round))
    return round
  }

  // MARK: - The user's commands

  private func finetune(with command: String, _ squeezed: String, round: Int, to path: String) throws {
    let target = folder.finetuned(inRound: round)
    let outcome = try ShellCommand(command).run(
      path: squeezed, variables: ["MPO_CHECKPOINT": squeezed, "MPO_OUTPUT": target], timeout: loop.timeout)
    try check(outcome, of: .finetune, round: round)
    func unusable(_ reason: String) -> SqueezeLoopError { .finetunedUnusable(round: round, reason: reason) }
    guard try FileStatus(at: target, followingLinks: false)?.kind == .folder else {
      throw unusable("there is no folder at that path; the command must write a whole MPO checkpoint there")
    }
    do {
      let found = try MPOCheckpoint(path: target)
      if let damaged = try found.damagedFiles().first { throw damaged }
      let given: MPOCheckpoint
      do {
        given = try MPOCheckpoint(path: squeezed)
      } catch { throw unusable("it removed or changed the checkpoint that it was given, which it must only read") }
      if let difference = found.difference(fromTrained: given) { throw unusable(difference) }
    } catch {
      throw problem(of: error).map(unusable) ?? error
    }
    if try inGivenGauges(target, squeezed, to: path) { return removeTree(at: target) }
    try flushFolder(at: target)
    guard rename(target, path) == 0 else {
      throw FileError.system(target, "give the fine-tuned checkpoint its name", errno)
    }
  }

  /// Writes what was trained in the gauges it was given in, so that its numbers can be compared; false where it has them
  /// already.
  private func inGivenGauges(_ trained: String, _ given: String, to path: String) throws -> Bool {
    let (trained, given) = (try MPOCheckpoint(path: trained), try MPOCheckpoint(path: given).contents)
    let gauges = given.operators.map { (TensorName($0.name), $0.gauge) }
    let regauged = SqueezedCheckpoint(
      trained, gauges: Dictionary(gauges, uniquingKeysWith: { first, _ in first }), keepsErrors: false)
    guard regauged.contents != trained.contents else { return false }
    let output = try AtomicOutput(at: path, kind: .folder, replacing: false)
    try regauged.write(to: output.temporaryPath, jobs: loop.jobs) { try source.finish($0, generator: loop.generator) }
    try output.commit()
    return true
  }

  private func score(of checkpoint: MPOCheckpoint, round: Int) throws -> Double {
    let outcome = try ShellCommand(options.evaluate).run(
      path: checkpoint.path, variables: ["MPO_CHECKPOINT": checkpoint.path], timeout: loop.timeout)
    try check(outcome, of: .evaluate, round: round)
    let score: Double
    switch Score.last(in: outcome.output) {
    case .number(let number): score = number
    case .none(let reason):
      throw SqueezeLoopError.commandFailed(.evaluate, round: round, reason: reason, errors: outcome.errors)
    }
    func changed(_ reason: String) -> SqueezeLoopError { .evaluatedChanged(round: round, reason: reason) }
    do {
      let found = try MPOCheckpoint(path: checkpoint.path)
      guard found.manifest == checkpoint.manifest else {
        throw changed("the checkpoint changed while it was evaluated: its manifest differs")
      }
      if let damaged = try found.damagedFiles().first { throw damaged }
    } catch {
      throw problem(of: error).map(changed) ?? error
    }
    return score
  }

  private func check(_ outcome: ShellCommand.Outcome, of command: SqueezeLoopError.Command, round: Int) throws {
    let reason: String
    switch outcome.ending {
    case .exited(0): return
    case .exited(127): reason = "exited with status 127: is the command installed?"
    case .exited(let status): reason = "exited with status \(status)"
    case .killed(let signal): reason = "was killed by signal \(signal)"
    case .timedOut:
      reason = "did not end within \((loop.timeout ?? .zero).description) (--timeout) and was killed"
    }
    throw SqueezeLoopError.commandFailed(command, round: round, reason: reason, errors: outcome.errors)
  }

  // MARK: - The output

  /// Gives the output its name, with what can be said of its errors, and cleans up. May be called again when it was
  /// interrupted.
  func publish(at path: String, replacing: Bool, _ result: SqueezeLoop.Result) throws {
    defer { if journal.ending?.published == true { folder.remove() } }
    if journal.ending?.published == true { return }
    let accepted = try openAccepted()
    if !replacing, try FileStatus(at: path, followingLinks: false) != nil {
      // A run that was killed after it gave the output its name left just this; anything else is somebody else's.
      let copy = try AtomicOutput(at: folder.path + "/round-result.mpo", kind: .folder, replacing: true)
      defer { copy.discard() }
      try write(accepted, result, to: copy.temporaryPath)
      guard let found = try? MPOCheckpoint(path: path),
        try MPOCheckpoint(path: copy.temporaryPath).manifest == found.manifest
      else { throw FileError.outputExists(path: path) }
    } else {
      let output = try AtomicOutput(at: path, kind: .folder, replacing: replacing)
      try write(accepted, result, to: output.temporaryPath)
      try output.commit()
    }
    try journal.append(SqueezeJournal.Ending(finished: result.reason, published: true))
  }

  private func write(_ accepted: MPOCheckpoint, _ result: SqueezeLoop.Result, to folder: String) throws {
    let isTrained = options.finetune != nil && result.accepted.round > 0
    let squeezed = SqueezedCheckpoint(accepted, gauge: options.gauge, keepsErrors: !isTrained)
    let source = source
    try squeezed.write(to: folder, packs: source.packs, jobs: loop.jobs) { writer in
      // The measured errors of the accepted checkpoint hold in any gauge, to the rounding of its cores.
      let records = squeezed.contents.tensors
      let measured = ParallelResults<TensorRecord>(count: records.count)
      let operators = ParallelResults<OperatorRecord>(count: records.count)
      try forEachInParallel(Array(records.indices), jobs: loop.jobs) { index in
        let (tensor, chain) = try source.measured(records[index], in: accepted)
        measured[index] = tensor
        operators[index] = chain.map { squeezed.contents.operator(named: $0.name)?.with(entropies: $0.entropies) ?? $0 }
      }
      try source.finish(
        writer, records: records.indices.compactMap { measured[$0] },
        operators: records.indices.compactMap { operators[$0] }, generator: loop.generator,
        squeeze: CheckpointManifest.Squeeze(
          limit: "\(options.limit)", baselineScore: result.rounds[0].score, score: result.accepted.score,
          rounds: result.rounds.count - 1))
    }
  }
}

/// What is wrong with a checkpoint that can't be read, by the error of reading it; nil for any other error.
private func problem(of error: any Error) -> String? {
  switch error {
  case let error as MPOCheckpointError: error.description
  case let error as CheckpointError: error.description
  case let error as FileError: error.description
  default: nil
  }
}

extension MPOCheckpoint {
  /// What makes this something else than `other` after training; nil when nothing does. Bonds may be lower.
  fileprivate func difference(fromTrained other: MPOCheckpoint) -> String? {
    for record in other.contents.tensors {
      let name = escaped(record.name)
      guard let found = self.record(named: record.name) else { return "tensor '\(name)' is missing" }
      guard found.dtype == record.dtype, found.shape == record.shape else {
        return
          "tensor '\(name)' is \(found.dtype.rawValue) \(found.shape), it was \(record.dtype.rawValue) \(record.shape)"
      }
      switch (found.storage, record.storage) {
      case (.dense, .dense): continue
      case (.tied(let a), .tied(let b)) where TensorName(a) == TensorName(b): continue
      case (.blocks(let a), .blocks(let b)) where a.blocks == b.blocks: continue
      default: return "tensor '\(name)' is stored differently than before (dense, tied or as blocks of operators)"
      }
    }
    for record in other.contents.operators {
      let name = escaped(record.name)
      guard let found = contents.operator(named: record.name) else { return "operator '\(name)' is missing" }
      guard found.split == record.split else { return "operator '\(name)' has other factors" }
      guard zip(found.bonds, record.bonds).allSatisfy({ $0 <= $1 }) else {
        return "operator '\(name)' has bonds \(found.bonds), which may not be above \(record.bonds)"
      }
    }
    guard contents.tensors.count == other.contents.tensors.count else {
      return "it has tensors that the input does not have"
    }
    return nil
  }
}
