import ArgumentParser
import Checkpoints
import Conversion
import Foundation
import Glibc
import LinearAlgebra
import MPOCheckpoints

/// Feeds damaged inputs to a reader in this process. A crash, an input that takes longer than the limit, and memory beyond
/// it all end the process by a signal; the input is then the file `last-input` of the scratch folder.
@main
struct MPOFuzz: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "mpo-fuzz", abstract: "See tools/fuzz.")

  @Argument(help: "header, index, manifest, packed or hdf5.") var target: FuzzTarget
  @Option(help: "The folder of the corpus.") var corpus: String
  @Option(help: "The folder of the fixtures.") var fixtures: String
  @Option(help: "An empty folder to work in.") var scratch: String
  @Option(help: "The mpo executable, for hdf5.") var tool: String?
  @Option(help: "How long.") var seconds: Double = 5
  @Option(help: "Where the random numbers begin.") var seed: UInt64 = 1
  @Option(help: "Memory beyond what the process starts with, in MB; 0 for no limit.") var memory = 256
  @Option(help: "Seconds for one input.") var limit: UInt32 = 10
  @Argument(help: "Inputs to read once each, instead of damaged ones.") var inputs: [String] = []

  func run() throws {
    try target.prepare(scratch, corpus: corpus)
    let seeds = try target.seeds(corpus: corpus, fixtures: fixtures)
    // Whatever is set up once is set up before memory is limited.
    for seed in seeds { try read(seed) }
    limitMemory()
    for path in inputs { try read(Array(try Data(contentsOf: URL(filePath: path)))) }
    guard inputs.isEmpty else { return }

    var mutator = Mutator(seed: seed, keepsLength: target.keepsLength)
    let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
    var (tried, accepted) = (0, 0)
    while ContinuousClock.now < deadline {
      let input = mutator.mutate(
        seeds[Int.random(in: 0..<seeds.count, using: &mutator)],
        other: seeds[Int.random(in: 0..<seeds.count, using: &mutator)])
      tried += 1
      if try read(input) { accepted += 1 }
    }
    print("\(target.rawValue): \(tried) inputs, \(accepted) of them valid, seed \(seed)")
  }

  /// Whether the input was valid.
  @discardableResult
  private func read(_ input: [UInt8]) throws -> Bool {
    try Data(input).write(to: URL(filePath: scratch + "/last-input"))
    alarm(limit)
    defer { alarm(0) }
    do {
      try target.read(input, in: scratch, tool: tool)
      return true
    } catch let error as FuzzFinding {
      throw error
    } catch {
      let text = "\(error)"
      let isOwn =
        error is CheckpointError || error is MPOCheckpointError || error is ConversionError
        || error is LinearAlgebraError
      guard isOwn, !text.contains("\n") else { throw FuzzFinding.badError("\(type(of: error)): \(text)") }
      return false
    }
  }

  /// Allocations beyond the limit fail, which ends the process.
  private func limitMemory() {
    guard memory > 0, let status = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8),
      let pages = status.split(separator: " ").first.flatMap({ UInt($0) })
    else { return }
    let bytes = pages * UInt(sysconf(Int32(_SC_PAGESIZE))) + UInt(memory) << 20
    var limit = rlimit(rlim_cur: bytes, rlim_max: bytes)
    setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
  }
}

extension FuzzTarget: ExpressibleByArgument {}
