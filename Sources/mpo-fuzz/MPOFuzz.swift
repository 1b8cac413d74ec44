import ArgumentParser
import Checkpoints
import Conversion
import Files
import Foundation
import Glibc
import LinearAlgebra
import MPOCheckpoints
import Recipes

/// Feeds damaged inputs to a reader in this process. A crash, an input that takes longer than the limit, and memory beyond
/// it all end the process; the input is then the file `last-input` of the scratch folder.
@main
struct MPOFuzz: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "mpo-fuzz", abstract: "See tools/fuzz.")

  @Argument(help: "header, index, kerasIndex, manifest, packed, recipe or hdf5.") var target: FuzzTarget
  @Option(help: "The folder of the corpus.") var corpus: String
  @Option(help: "The folder of the fixtures.") var fixtures: String
  @Option(help: "An empty folder to work in.") var scratch: String
  @Option(help: "The mpo executable, for hdf5.") var tool: String?
  @Option(help: "How long to run.") var seconds: Double = 5
  @Option(help: "The seed of the random numbers.") var seed: UInt64 = 1
  @Option(help: "Seconds for one input.") var limit: UInt32 = 10
  @Option(help: "A folder that keeps what libFuzzer finds.") var found: String?
  @Argument(help: "Inputs to read once each, instead of damaged ones.") var inputs: [String] = []

  func run() throws {
    try target.prepare(scratch, corpus: corpus)
    let folder = corpus + "/checkpoints"
    let originals =
      try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map { folder + "/" + $0 }
      + [fixtures + "/malformed/base.mpo"]
    let checkpoints = try originals.enumerated().map { index, original in
      try DamagedCheckpoint(copying: original, to: scratch + "/\(index).mpo")
    }
    func read(_ input: [UInt8]) throws -> Bool { try self.read(input, checkpoints) }

    // Whatever is set up once is set up before memory is limited.
    let seeds = try target.seeds(corpus: corpus, checkpoints: originals, fixtures: fixtures)
    for (index, seed) in seeds.enumerated() {
      let isValid = try alone(seed, read)
      guard isValid || !target.readsCheckpoints || index >= originals.count else {
        throw ValidationError("\(originals[index]) is not valid: run tools/fixtures/fuzz_fixtures.py")
      }
    }
    try limitMemory()
    for path in inputs { _ = try alone(Array(try Data(contentsOf: URL(filePath: path))), read) }
    guard inputs.isEmpty else { return }
    #if LIBFUZZER
      if target != .hdf5 { return try readWhatLibFuzzerMakes(seeds, read) }
    #endif

    var mutator = Mutator(seeds, seed: seed)
    let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
    var count = Count()
    while ContinuousClock.now < deadline { count.add(isValid: try alone(mutator.next(), read)) }
    print("\(target.rawValue): \(count), seed \(seed)")
  }

  private struct Count: CustomStringConvertible {
    private var inputs = 0
    private var valid = 0

    mutating func add(isValid: Bool) {
      inputs += 1
      if isValid { valid += 1 }
    }

    var description: String { "\(inputs) inputs, \(valid) of them valid" }
  }

  /// Reads an input, with a limit of time and a copy to find it by; whether it was valid.
  private func alone(_ input: [UInt8], _ read: ([UInt8]) throws -> Bool) throws -> Bool {
    try Data(input).write(to: URL(filePath: scratch + "/last-input"))
    alarm(limit)
    defer { alarm(0) }
    return try read(input)
  }

  /// Whether the input was valid.
  private func read(_ input: [UInt8], _ checkpoints: [DamagedCheckpoint]) throws -> Bool {
    do {
      try target.read(input, in: scratch, checkpoints: checkpoints, tool: tool)
      return true
    } catch let error as FuzzFinding {
      throw error
    } catch {
      let text = "\(error)"
      let isOwn =
        error is FileError || error is CheckpointError || error is MPOCheckpointError || error is ConversionError
        || error is LinearAlgebraError || error is RecipeError
      guard isOwn, !text.contains("\n") else { throw FuzzFinding.badError("\(type(of: error)): \(text)") }
      return false
    }
  }

  /// Allocations beyond what the process has now and this fail, which ends the process.
  private static let megabytes = 256

  #if LIBFUZZER
    /// libFuzzer watches the memory; under AddressSanitizer addresses can't be limited.
    private func limitMemory() throws {}

    private func readWhatLibFuzzerMakes(_ seeds: [[UInt8]], _ read: @escaping ([UInt8]) throws -> Bool) throws {
      let places = (found: found ?? scratch + "/found", seeds: scratch + "/seeds", words: scratch + "/words")
      for folder in [places.found, places.seeds] {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      }
      for (index, seed) in seeds.enumerated() {
        try Data(seed).write(to: URL(filePath: places.seeds + "/\(index)"))
      }
      let words = Mutator.tokens.map { word in "\"" + word.map { "\\x" + hexadecimal([$0]) }.joined() + "\"\n" }
      try Data(words.joined().utf8).write(to: URL(filePath: places.words))
      var count = Count()
      CoverageGuidedFuzzer.run(
        [
          "-max_total_time=\(max(1, Int(seconds)))", "-seed=\(UInt32(truncatingIfNeeded: seed))", "-timeout=\(limit)",
          "-max_len=\(4 * (seeds.map(\.count).max() ?? 0))", "-dict=\(places.words)", "-verbosity=0", "-print_funcs=0",
          "-reload=0",
          // A single allocation, and all of them with what AddressSanitizer keeps beside each.
          "-malloc_limit_mb=\(Self.megabytes / 4)", "-rss_limit_mb=\(3 * Self.megabytes)",
          "-exact_artifact_path=\(scratch)/last-input", places.found, places.seeds,
        ],
        read: { count.add(isValid: try read($0)) },
        finish: { print("\(target.rawValue): \(count), coverage-guided, seed \(seed)") })
    }
  #else
    private func limitMemory() throws {
      let status = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
      guard let pages = status.split(separator: " ").first.flatMap({ UInt($0) }) else { return }
      let bytes = pages * UInt(sysconf(Int32(_SC_PAGESIZE))) + UInt(Self.megabytes) << 20
      var limit = rlimit(rlim_cur: bytes, rlim_max: bytes)
      setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
    }
  #endif
}

extension FuzzTarget: ExpressibleByArgument {}
