import ArgumentParser
import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

/// Times the decomposition of one matrix alone, without reading, planning and writing.
struct Decompose: ParsableCommand {
  @Argument var checkpoint: String
  @Argument var tensor: String
  /// Bonds; full rank without them.
  @Option var bonds: String?
  @Option var runs = 5

  func run() throws {
    BLASThreads.use(1)
    let source = try openDenseCheckpoint(at: checkpoint)
    guard let info = source.tensor(named: tensor), info.shape.count == 2 else {
      throw ValidationError("The checkpoint has no matrix of this name.")
    }
    let shape = MPOShape.automatic(rows: info.shape[0], columns: info.shape[1], sites: 5)
    let bonds = self.bonds.map { $0.split(separator: ",").compactMap { Int($0) } } ?? shape.fullBonds
    let clock = ContinuousClock()
    try source.withBytes(of: info) { bytes in
      try Float.withElements(bytes, of: info.dtype) { elements in
        let view = MatrixView(elements, rows: info.shape[0], columns: info.shape[1])
        for _ in 0..<runs {
          var mpo: MPO<Float>?
          let decomposed = try clock.measure { mpo = try MPO(decomposing: view, shape: shape, bonds: bonds) }
          var error = 0.0
          let measured = clock.measure {
            error = (mpo?.squaredDistance(to: view) ?? .nan).squareRoot()
          }
          let profiled = try clock.measure { _ = try SingularSpectra(of: view, shape: shape) }
          print(
            "decompose \(decomposed / .seconds(1)) measure \(measured / .seconds(1)) profile \(profiled / .seconds(1))",
            "error \(error / view.squaredNorm.squareRoot())")
        }
      }
    }
  }
}
