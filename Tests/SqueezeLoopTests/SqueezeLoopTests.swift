import Checkpoints
import Files
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion
@testable import SqueezeLoop

/// Squeezes of a small network with shell commands as evaluation. The score of most is the size of the tensors file, in
/// bytes: it falls as the network is squeezed, and every parameter counts.
@Suite struct SqueezeLoopTests {
  static let size = "wc -c < {}/tensors.safetensors"

  private func loop(
    _ evaluate: String = size, limit: SqueezeOptions.Limit = .maximumDrop(60_000),
    step: SqueezeOptions.Step = .fraction(0.05),
    change: (inout SqueezeOptions) -> Void = { _ in }
  ) -> SqueezeLoop {
    var options = SqueezeOptions(evaluate: evaluate, limit: limit)
    options.step = step
    change(&options)
    return SqueezeLoop(options: options, jobs: 2, generator: "mpo test")
  }

  @Test(arguments: SqueezeCriterion.allCases, [false, true])
  func `parameters fall, accepted scores stay within the limit, and the result loads and verifies`(
    criterion: SqueezeCriterion, fromCores: Bool
  ) throws {
    let place = try SqueezePlace()
    let input = fromCores ? try place.lossless() : place.model
    let result = try loop { $0.criterion = criterion }.run(input, to: place.output)
    let accepted = result.rounds.filter(\.accepted)
    #expect(accepted.count > 3)
    for (previous, next) in zip(accepted, accepted.dropFirst()) { #expect(next.parameters < previous.parameters) }
    #expect(accepted.allSatisfy { $0.score >= result.rounds[0].score - 60_000 })
    #expect(result.rounds.filter { !$0.accepted }.allSatisfy { $0.score < result.rounds[0].score - 60_000 })
    #expect(result.accepted == accepted.last)

    let output = try MPOCheckpoint(path: place.output)
    #expect(output.manifest.totals.parametersStored == result.accepted.parameters)
    for chain in output.contents.operators { #expect(chain.shape.limitedBonds(chain.bonds) == chain.bonds) }
    let report = try Verifier(jobs: 2).verify(output, against: openDenseCheckpoint(at: place.model))
    #expect(report.problems == [])
    #expect(
      try place.names == ["model.safetensors", "out.mpo", "out.mpo.squeeze.jsonl"] + (fromCores ? ["x.mpo"] : []))
  }

  @Test func `a dense input begins as it is, and its errors are measured`() throws {
    let place = try SqueezePlace()
    let result = try loop { $0.maximumRounds = 3 }.run(place.model, to: place.output)
    let original = try openDenseCheckpoint(at: place.model)
    #expect(result.rounds[0].parameters == original.tensors.reduce(0) { $0 + $1.elementCount })
    let contents = try MPOCheckpoint(path: place.output).contents
    let matrices = contents.tensors.compactMap(\.blocks)
    #expect(!matrices.isEmpty)
    #expect(matrices.allSatisfy { $0.relativeError != nil && $0.svdRelativeError != nil })
    #expect(contents.operators.allSatisfy { contents.valueCount(of: $0) < $0.rows * $0.columns && $0.entropies != nil })
  }

  @Test(arguments: [true, false], [true, false])
  func `the output is packed where that is asked for or the input is`(fromPacked: Bool, isTrained: Bool) throws {
    let place = try SqueezePlace()
    let input = fromPacked ? try place.lossless(packs: true) : place.model
    let squeeze = loop("echo 1") {
      $0.packs = !fromPacked
      $0.maximumRounds = 2
      if isTrained { $0.finetune = "cp -r $MPO_CHECKPOINT $MPO_OUTPUT" }
    }
    let result = try squeeze.run(input, to: place.output)
    let output = try MPOCheckpoint(path: place.output)
    #expect(result.accepted.round == 2)
    #expect(output.contents.cores.contains { !$0.packed.isEmpty })
    let report = try Verifier(jobs: 2).verify(output, against: openDenseCheckpoint(at: place.model))
    #expect(report.problems == [])

    let loose = place.path + "/loose.mpo"
    var unpacked = squeeze
    unpacked.options.packs = false
    _ = try unpacked.run(place.model, to: loose)
    #expect(try MPOCheckpoint(path: loose).manifest.contents.tensors.allSatisfy { $0.packed.isEmpty })
  }

  @Test func `one part of a conversion is refused`() throws {
    let place = try SqueezePlace()
    let part = try place.lossless(part: SourceNetwork.Part(index: 1, count: 2))
    let refusal = message { try loop().run(part, to: place.output) }
    for expected in [part, "part 1 of 2", "mpo merge"] { #expect(refusal?.contains(expected) == true) }
    #expect(try place.names == ["model.safetensors", "x.mpo"])
  }

  @Test func `errors of an input in cores are known only where nothing changed`() throws {
    let place = try SqueezePlace()
    let input = try place.lossless()
    _ = try loop(step: .parameters(1)) { $0.maximumRounds = 1 }.run(input, to: place.output)
    let before = try MPOCheckpoint(path: input).contents
    let after = try MPOCheckpoint(path: place.output).contents
    for (old, new) in zip(before.tensors, after.tensors) {
      let isSame = before.ordinaryOperator(of: old)?.bonds == after.ordinaryOperator(of: new)?.bonds
      #expect(new.blocks?.relativeError == (isSame ? old.blocks?.relativeError : nil))
    }
    #expect(zip(before.operators, after.operators).count { $0.bonds != $1.bonds } == 1)
  }

  @Test func `every round takes the cheapest steps of the model it begins with`() throws {
    let place = try SqueezePlace()
    let input = try place.lossless()
    // Rounds of one step: at each, no other single-bond step anywhere has a smaller growth of the error per parameter.
    _ = try loop(step: .parameters(1)) { $0.maximumRounds = 12 }.run(input, to: place.output)
    let rounds = try place.rounds()
    var current = try MPOCheckpoint(path: input)
    var source = try SqueezeSource(
      path: input, selection: TensorSelection(), options: SqueezeOptions(evaluate: "", limit: .worstScore(0)), jobs: 1)
    for round in rounds.dropFirst() {
      var best: (cost: Double, name: String, bonds: [Int])?
      for candidate in source.candidates {
        let profile = try #require(try current.profile(of: candidate))
        let bonds = try #require(current.contents.operator(named: candidate.name)?.bonds)
        for index in bonds.indices {
          var lowered = bonds
          lowered[index] -= 1
          guard lowered[index] > 0, candidate.shape.limitedBonds(lowered) == lowered else { continue }
          let saved =
            candidate.shape.storedCount(bonds: bonds, gauge: .compact)
            - candidate.shape.storedCount(bonds: lowered, gauge: .compact)
          let error = try #require(profile.relativeErrorBound(bonds: lowered))
          let cost = error * error * Double(candidate.rows * candidate.columns) / Double(saved)
          if cost < best?.cost ?? .infinity { best = (cost, candidate.name, lowered) }
        }
      }
      let expected = try #require(best)
      #expect(round.accepted && round.bonds == [TensorName(expected.name): expected.bonds])
      let next = place.path + "/next-\(round.round).mpo"
      try FileManager.default.createDirectory(atPath: next, withIntermediateDirectories: true)
      try SqueezedCheckpoint(current, bonds: round.bonds).write(to: next, jobs: 1) {
        try source.finish($0, generator: "mpo test")
      }
      current = try MPOCheckpoint(path: next)
    }
    source = try SqueezeSource(
      path: place.output, selection: TensorSelection(), options: SqueezeOptions(evaluate: "", limit: .worstScore(0)),
      jobs: 1)
    #expect(source.candidates.map(\.bonds) == current.contents.operators.map(\.bonds))
  }

  @Test func `a rejected round halves the step until the smallest`() throws {
    let place = try SqueezePlace()
    let result = try loop(limit: .maximumDrop(10_000), step: .parameters(8000)) { $0.minimumStep = .parameters(900) }
      .run(place.model, to: place.output)
    let steps = result.rounds.dropFirst().compactMap { round in round.step.map { ($0, round.accepted) } }
    #expect(steps.first?.0 == 8000)
    for (previous, next) in zip(steps, steps.dropFirst()) {
      // A smaller step may be passed over when it would lower the same bonds as the one that was rejected.
      #expect(previous.1 ? next.0 == previous.0 : next.0 <= max(900, previous.0 / 2))
    }
    #expect(steps.allSatisfy { $0.0 >= 900 })
    #expect(result.reason == "the smallest step was rejected")
  }

  @Test func `no accepted round gives the input back`() throws {
    let place = try SqueezePlace()
    let result = try loop(limit: .maximumDrop(0)).run(place.model, to: place.output)
    #expect(result.accepted.round == 0)
    let report = try Verifier(jobs: 1).verify(
      MPOCheckpoint(path: place.output), against: openDenseCheckpoint(at: place.model))
    #expect(report.problems == [])
  }

  @Test func `lower is better where the score is a loss`() throws {
    let place = try SqueezePlace()
    let loss = "echo $((500000 - $(\(Self.size))))"
    let result = try loop(loss) { $0.lowerIsBetter = true }.run(place.model, to: place.output)
    #expect(result.accepted.round > 0)
    #expect(result.rounds.allSatisfy { $0.accepted == ($0.score <= result.rounds[0].score + 60_000) })
  }

  @Test func `ties, floors and exclusions hold in every round`() throws {
    let place = try SqueezePlace()
    let input = try place.lossless()
    var loop = loop(limit: .maximumDrop(1e9), step: .fraction(0.2)) {
      $0.ties = ["*.query", "*.key"]
      $0.minimumBonds = [.init(glob: "*", bond: 3), .init(glob: "*.wide", bond: 5)]
    }
    loop.selection.exclude = ["frozen"]
    let result = try loop.run(input, to: place.output)
    #expect(result.reason == "no bond can be lowered further")
    let before = try MPOCheckpoint(path: input)
    let output = try MPOCheckpoint(path: place.output)
    #expect(output.contents.operator(named: "frozen") == before.contents.operator(named: "frozen"))
    for round in result.rounds.dropFirst() {
      #expect(round.bonds["0.query"] == round.bonds["1.query"] && round.bonds["0.key"] == round.bonds["1.key"])
      #expect(round.bonds["frozen"] == nil)
    }
    for chain in output.contents.operators where chain.name != "frozen" {
      let floor = chain.name.hasSuffix(".wide") ? 5 : 3
      #expect(chain.bonds == chain.shape.limitedBonds(chain.shape.fullBonds.map { min($0, floor) }))
    }
  }

  @Test func `globs that match nothing and tied bonds that differ are refused`() throws {
    let place = try SqueezePlace()
    for change: (inout SqueezeOptions) -> Void in [
      { $0.ties = ["nothing*"] }, { $0.minimumBonds = [.init(glob: "nothing*", bond: 2)] },
    ] {
      #expect(throws: ConversionError.self) { try loop(change: change).run(place.model, to: place.output) }
    }
    #expect(throws: SqueezeError.tiedShapesDiffer("0.query", "0.wide")) {
      try loop { $0.ties = ["0.*"] }.run(place.model, to: place.output)
    }
    #expect(try place.names == ["model.safetensors"])
    _ = try loop(step: .parameters(1)) { $0.maximumRounds = 1 }.run(place.lossless(), to: place.output)
    #expect(throws: SqueezeLoopError.self) {
      try loop { $0.ties = ["*.query", "*.key", "*.wide"] }.run(place.output, to: place.path + "/other.mpo")
    }
  }

  // MARK: - Fine-tuning

  @Test func `fine-tuning that only moves weight between the cores changes nothing`() throws {
    guard SqueezePlace.hasPython else {
      print("skipped: there is no python3")
      return
    }
    let place = try SqueezePlace()
    let plain = try loop {
      $0.maximumRounds = 4
      $0.gauge = .canonical
    }.run(place.model, to: place.output)
    let expected = try MPOCheckpoint(path: place.output)
    let trained = place.path + "/trained.mpo"
    let script = try place.write(SqueezePlace.gaugeScript, to: "gauge.py")
    let result = try loop {
      $0.maximumRounds = 4
      $0.gauge = .canonical
      $0.finetune = "python3 \(script) {} \"$MPO_OUTPUT\""
    }.run(place.model, to: trained)
    #expect(result.rounds.map(\.bonds) == plain.rounds.map(\.bonds))
    #expect(result.rounds.map(\.accepted) == plain.rounds.map(\.accepted))
    let found = try MPOCheckpoint(path: trained)
    for (a, b) in zip(found.manifest.contents.tensors, expected.manifest.contents.tensors) {
      guard let a = a.blocks, let b = b.blocks else { continue }
      // Measured against the dense input, though the cores have other values.
      #expect(abs(try #require(a.relativeError) - (try #require(b.relativeError))) < 1e-6)
    }
    let original = try openDenseCheckpoint(at: place.model)
    #expect(try Verifier(jobs: 2).verify(found, against: original).problems == [])
  }

  @Test(arguments: [
    ("exit 3", "exited with status 3"), ("true", "no folder at that path"),
    ("mkdir \"$MPO_OUTPUT\"", "not an MPO checkpoint"),
    ("cp -r {} \"$MPO_OUTPUT\" && echo >> \"$MPO_OUTPUT\"/tensors.safetensors", "bytes"),
    ("cp -r {} \"$MPO_OUTPUT\" && echo >> \"$MPO_OUTPUT\"/manifest.json", "changed after it was written"),
    ("cp -r {} \"$MPO_OUTPUT\" && rm -r {}", "removed or changed the checkpoint that it was given"),
    ("cp -r {}/../../x.mpo \"$MPO_OUTPUT\"", "which may not be above"),
  ])
  func `a fine-tune command that leaves something else stops the squeeze`(command: String, reason: String) throws {
    let place = try SqueezePlace()
    let input = try place.lossless()
    let error = #expect(throws: SqueezeLoopError.self) {
      try loop { $0.finetune = command }.run(input, to: place.output)
    }
    #expect("\(try #require(error))".contains(reason), "\(String(describing: error))")
    #expect(try place.rounds().count == 1)
  }

  // MARK: - Faults

  static let faults: [(command: String, reason: String)] = [
    ("echo worse >&2; exit 4", "exited with status 4"), ("kill -9 $$", "killed by signal 9"),
    ("echo fine", "printed 'fine' as its last line, which is not a number"), ("true", "printed nothing"),
    ("echo nan", "not a finite number"), ("echo inf", "not a finite number"), ("echo 1 2", "not a number"),
    ("sleep 60 & wait", "did not end within"), ("trap '' TERM; sleep 60 & wait", "did not end within"),
    ("rm -r {}; echo 1", "changed the checkpoint"), ("rm {}/tensors.safetensors; echo 1", "changed the checkpoint"),
    ("echo >> {}/manifest.json; echo 1", "changed the checkpoint"),
    (
      "printf x | dd of={}/tensors.safetensors bs=1 seek=5000 conv=notrunc 2>/dev/null; echo 1",
      "changed the checkpoint"
    ),
    ("no-such-command-anywhere", "is the command installed?"),
  ]

  @Test(arguments: faults)
  func `an evaluation that fails keeps the model accepted last, and the squeeze can go on`(
    command: String, reason: String
  ) throws {
    let place = try SqueezePlace()
    // Well for the first rounds, then the fault; then, when the flag is there, well again.
    let evaluate = """
      if [ -e \(place.path)/well ] || [ "$(ls -d {}/../round-3.mpo 2>/dev/null)" = "" ]; then \(Self.size); \
      else \(command); fi
      """
    var squeeze = loop(evaluate) { $0.maximumRounds = 5 }
    squeeze.timeout = .seconds(1)
    var kept: (round: Int, path: String)?
    let error = #expect(throws: SqueezeLoopError.self) {
      try squeeze.run(place.model, to: place.output) { event in
        if case .stopped(let round, let path) = event { kept = (round.round, path) }
      }
    }
    #expect("\(try #require(error))".contains(reason), "\(String(describing: error))")
    let model = try #require(kept)
    #expect(model.round == 2)
    #expect(try MPOCheckpoint(path: model.path).damagedFiles() == [])
    #expect(try place.names == ["model.safetensors", "out.mpo.squeeze", "out.mpo.squeeze.jsonl"])

    try place.write("", to: "well")
    squeeze.timeout = nil
    let resumed = try squeeze.run(place.model, to: place.output, resuming: true)
    let other = place.path + "/whole.mpo"
    let whole = try squeeze.run(place.model, to: other)
    #expect(resumed.rounds.map(\.score) == whole.rounds.map(\.score))
    #expect(try place.content(of: place.output) == place.content(of: other))
  }

  @Test func `a first evaluation that fails leaves nothing behind`() throws {
    let place = try SqueezePlace()
    #expect(throws: SqueezeLoopError.self) { try loop("false").run(place.model, to: place.output) }
    #expect(throws: SqueezeLoopError.baselineOutsideLimit(score: 1, limit: 2)) {
      try loop("echo 1", limit: .worstScore(2)).run(place.model, to: place.output)
    }
    #expect(try place.names == ["model.safetensors"])
  }

  @Test func `children in the background do not hold up a round`() throws {
    let place = try SqueezePlace()
    let begin = ContinuousClock.now
    _ = try loop("sleep 20 & \(Self.size)") { $0.maximumRounds = 1 }.run(place.model, to: place.output)
    #expect(ContinuousClock.now - begin < .seconds(10))
  }

  @Test func `commands get the path quoted and in their environment, and no input`() throws {
    let place = try SqueezePlace(named: "it's a \"place\" $HOME")
    let result = try loop("cat; test {} = \"$MPO_CHECKPOINT\" && \(Self.size)") { $0.maximumRounds = 1 }
      .run(place.model, to: place.output)
    #expect(result.rounds.count == 2)
  }

  @Test func `large output of a command does not stop it, the last line counts`() throws {
    let place = try SqueezePlace()
    let result = try loop("seq 200000; seq 200000 >&2; \(Self.size)") { $0.maximumRounds = 1 }
      .run(place.model, to: place.output)
    #expect(result.rounds[0].score > 1000)
  }

  @Test(arguments: [
    ("1", Score.number(1)), ("epoch 3\n  0.875 \n\n", .number(0.875)), ("-1e-3\r\n", .number(-1e-3)),
    ("5\n6\n7", .number(7)),
  ])
  func `the score is the last line that is not blank`(output: String, expected: Score) {
    #expect(Score.last(in: output) == expected)
  }

  // MARK: - The journal

  @Test func `a squeeze that was ended after any line of its journal ends in the same result`() throws {
    let place = try SqueezePlace()
    let whole = place.path + "/whole.mpo"
    let squeeze = loop(limit: .maximumDrop(30_000), step: .fraction(0.08))
    let expected = try squeeze.run(place.model, to: whole)
    #expect(expected.rounds.contains { !$0.accepted } && expected.rounds.count > 4)
    let content = try place.content(of: whole)
    for count in 0..<expected.rounds.count {
      struct Ended: Error {}
      // Ends the run from outside once `count` rounds are in the journal.
      let stop = "[ \"$(wc -l < \(place.output).squeeze.jsonl)\" -gt \(count) ] && exit 1; \(Self.size)"
      let evaluate = "if [ -e \(place.path)/well ]; then \(Self.size); else \(stop); fi"
      let interrupted = loop(evaluate, limit: .maximumDrop(30_000), step: .fraction(0.08))
      #expect(throws: SqueezeLoopError.self) { try interrupted.run(place.model, to: place.output) }
      try place.write("", to: "well")
      // What a process that was killed while it wrote a line, or a checkpoint, leaves.
      if count > 0 {
        let journal = try #require(FileHandle(forWritingAtPath: place.output + ".squeeze.jsonl"))
        try journal.seekToEnd()
        try journal.write(contentsOf: Data("{\"accepted\":true,\"bo".utf8))
        try journal.close()
        try place.write("half", to: "out.mpo.squeeze/round-\(count).mpo/tensors.safetensors")
        try place.write("half", to: "out.mpo.squeeze/.round-\(count).mpo.0123456789abcdef.partial/x")
      }
      let resumed = try interrupted.run(place.model, to: place.output, resuming: true)
      #expect(resumed.rounds.map(\.bonds) == expected.rounds.map(\.bonds))
      #expect(resumed.rounds.map(\.accepted) == expected.rounds.map(\.accepted))
      #expect(try place.content(of: place.output) == content)
      for name in ["out.mpo", "out.mpo.squeeze.jsonl", "well"] {
        try FileManager.default.removeItem(atPath: place.path + "/" + name)
      }
    }
  }

  @Test func `a squeeze that was ended between its output and the last line of its journal is done when resumed`()
    throws
  {
    let place = try SqueezePlace()
    let squeeze = loop { $0.maximumRounds = 2 }
    // A second, unfinished squeeze of the same kind, whose output then appears as if by the first.
    let other = place.path + "/other.mpo"
    _ = try squeeze.run(place.model, to: other)
    let failing = "if [ -e \(place.path)/well ]; then \(Self.size); else exit 1; fi"
    try place.write("", to: "well")
    let whole = loop(failing) { $0.maximumRounds = 2 }
    _ = try whole.run(place.model, to: place.output)
    let journal = place.output + ".squeeze.jsonl"
    let lines = try String(contentsOfFile: journal, encoding: .utf8).split(separator: "\n")
    // The accepted checkpoint of the work folder is the output but for its manifest.
    try FileManager.default.removeItem(atPath: place.output)
    try (lines.prefix(3).joined(separator: "\n") + "\n").write(toFile: journal, atomically: true, encoding: .utf8)
    try FileManager.default.createDirectory(atPath: place.output + ".squeeze", withIntermediateDirectories: true)
    let round = try #require(whole.options.maximumRounds)
    try FileManager.default.moveItem(atPath: other, toPath: place.output + ".squeeze/round-\(round - 1).mpo")
    // One round is left; then the output is there, and the last line of the journal is taken away again.
    let result = try whole.run(place.model, to: place.output, resuming: true)
    #expect(result.accepted.round == 2)
    let written = try place.content(of: place.output)
    let again = try whole.run(place.model, to: place.output, resuming: true)
    #expect(again.rounds == result.rounds)
    #expect(try place.content(of: place.output) == written)
  }

  @Test func `other options, another input or a generator of its own refuse to resume`() throws {
    let place = try SqueezePlace()
    let squeeze = loop("test -e \(place.path)/fail && exit 1; \(Self.size)")
    try place.endAfterTwoRounds(squeeze)
    var others: [SqueezeLoop] = []
    for change: (inout SqueezeOptions) -> Void in [
      { $0.finetune = "true" }, { $0.limit = .worstScore(1) }, { $0.lowerIsBetter = true }, { $0.maximumRounds = 9 },
      { $0.step = .parameters(5) }, { $0.minimumStep = .parameters(5) }, { $0.criterion = .error },
      { $0.ties = ["*.query"] }, { $0.minimumBonds = [.init(glob: "*", bond: 2)] }, { $0.coreDType = .bf16 },
      { $0.packs = true }, { $0.gauge = .canonical },
      { $0.evaluate = "echo 1" },
    ] {
      var other = squeeze
      change(&other.options)
      others.append(other)
    }
    var selective = squeeze
    selective.selection.exclude = ["frozen"]
    var newer = squeeze
    newer.generator = "mpo 99"
    for other in others + [selective, newer] {
      let error = #expect(throws: SqueezeLoopError.self) {
        try other.run(place.model, to: place.output, resuming: true)
      }
      guard case .journal? = error else {
        Issue.record("\(String(describing: error))")
        continue
      }
    }
    // Without --resume a journal with rounds is not thrown away.
    #expect(throws: SqueezeLoopError.self) { try squeeze.run(place.model, to: place.output) }
    let bytes = try Data(contentsOf: URL(fileURLWithPath: place.model))
    try place.writeModel(seed: 99)
    let error = #expect(throws: SqueezeLoopError.self) {
      try squeeze.run(place.model, to: place.output, resuming: true)
    }
    #expect("\(try #require(error))".contains("another input"))
    try bytes.write(to: URL(fileURLWithPath: place.model))
    try FileManager.default.removeItem(atPath: place.path + "/fail")
    #expect(try squeeze.run(place.model, to: place.output, resuming: true).rounds.count > 2)
  }

  @Test func `a second squeeze on one journal or one output is refused`() throws {
    let place = try SqueezePlace()
    let journal = try SqueezeJournal(path: place.output + ".squeeze.jsonl")
    var error = #expect(throws: SqueezeLoopError.self) { try loop().run(place.model, to: place.output) }
    #expect("\(try #require(error))".contains("another squeeze is using it"))
    journal.remove()
    let folder = try SqueezeWorkFolder(beside: place.output)
    error = #expect(throws: SqueezeLoopError.self) {
      try loop().run(place.model, to: place.output, journal: place.path + "/j.jsonl")
    }
    #expect("\(try #require(error))".contains("another squeeze is using it"))
    folder.remove()
    #expect(try place.names == ["model.safetensors"])
  }

  @Test(arguments: ["no journal at all", "{\"a\": 1}", "{\"a\": 1}\n", "{\"files\":[]}\nmore\n", "\n"])
  func `a file that is not a journal is refused and left alone`(content: String) throws {
    let place = try SqueezePlace()
    let path = try place.write(content, to: "notes")
    for resuming in [false, true] {
      #expect(throws: SqueezeLoopError.self) {
        try loop().run(place.model, to: place.output, journal: path, resuming: resuming)
      }
    }
    #expect(try String(contentsOfFile: path, encoding: .utf8) == content)
  }

  @Test func `a journal with a damaged line or without its model is refused`() throws {
    let place = try SqueezePlace()
    let squeeze = loop("test -e \(place.path)/fail && exit 1; \(Self.size)")
    try place.endAfterTwoRounds(squeeze)
    let journal = place.output + ".squeeze.jsonl"
    let good = try String(contentsOfFile: journal, encoding: .utf8)
    var lines = good.split(separator: "\n").map(String.init)
    lines[1] = String(lines[1].dropLast(3))
    try (lines.joined(separator: "\n") + "\n").write(toFile: journal, atomically: true, encoding: .utf8)
    #expect(throws: SqueezeLoopError.self) { try squeeze.run(place.model, to: place.output, resuming: true) }
    try good.write(toFile: journal, atomically: true, encoding: .utf8)
    try FileManager.default.removeItem(atPath: place.output + ".squeeze")
    #expect(throws: SqueezeLoopError.self) { try squeeze.run(place.model, to: place.output, resuming: true) }
  }

  @Test func `an output that is there is not replaced, and the input never changes`() throws {
    let place = try SqueezePlace()
    let input = try place.lossless()
    let before = try place.content(of: input)
    let squeeze = loop { $0.maximumRounds = 1 }
    _ = try squeeze.run(input, to: place.output)
    let written = try place.content(of: place.output)
    #expect(throws: FileError.self) { try squeeze.run(input, to: place.output) }
    // Done is done.
    #expect(try squeeze.run(input, to: place.output, resuming: true).rounds.count == 2)
    #expect(try place.content(of: place.output) == written)
    _ = try squeeze.run(input, to: place.output, replacing: true)
    #expect(try place.content(of: input) == before)
  }

  // MARK: - A full disk

  @Test func `a disk that is full in the middle of a round loses nothing`() throws {
    let place = try SqueezePlace()
    let small = place.path + "/small"
    try FileManager.default.createDirectory(atPath: small, withIntermediateDirectories: true)
    guard SqueezePlace.run("mount", ["-t", "tmpfs", "-o", "size=240k", "tmpfs", small]) == 0 else {
      print("skipped: no tmpfs can be mounted here")
      return
    }
    defer { _ = SqueezePlace.run("umount", [small]) }
    // There is room for the model and the journal, not for a second model.
    let squeeze = loop { $0.maximumRounds = 3 }
    let error = #expect(throws: FileError.self) { try squeeze.run(place.model, to: small + "/out.mpo") }
    #expect("\(try #require(error))".contains("no space left"), "\(String(describing: error))")
    #expect(try SqueezeJournal(path: small + "/out.mpo.squeeze.jsonl").rounds.count == 1)
    #expect(SqueezePlace.run("mount", ["-o", "remount,size=8m", small]) == 0)
    let resumed = try squeeze.run(place.model, to: small + "/out.mpo", resuming: true)
    let whole = try squeeze.run(place.model, to: place.output)
    #expect(resumed.rounds.map(\.score) == whole.rounds.map(\.score))
    #expect(try place.content(of: small + "/out.mpo") == place.content(of: place.output))
  }
}
