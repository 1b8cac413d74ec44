import ArgumentParser
import Checkpoints

/// Times reading one tensor alone.
struct Read: ParsableCommand {
  @Argument var checkpoint: String
  @Argument var tensor: String
  @Option var runs = 5

  func run() throws {
    let clock = ContinuousClock()
    for _ in 0..<runs {
      var sum: UInt64 = 0
      let time = try clock.measure {
        let source = try openDenseCheckpoint(at: checkpoint)
        guard let info = source.tensor(named: tensor) else {
          throw ValidationError("The checkpoint has no tensor of this name.")
        }
        // A byte of each page, so that all of them are really there.
        sum = try source.withBytes(of: info) { bytes in
          stride(from: 0, to: bytes.count, by: 4096).reduce(0) { $0 &+ UInt64(bytes[$1]) }
        }
      }
      print(time / .seconds(1), sum)
    }
  }
}
