import TensorNetworks
import TestSupport
import Testing

@testable import Squeezing

@Suite struct StoredCountTests {
  /// A shape of two to five sites and bonds that it allows.
  private func random(_ generator: inout SeededGenerator) throws -> (shape: MPOShape, bonds: [Int]) {
    let sites = Int.random(in: 2...5, using: &generator)
    func factors() -> [Int] { (0..<sites).map { _ in Int.random(in: 2...5, using: &generator) } }
    let shape = try MPOShape(rowFactors: factors(), columnFactors: factors())
    return (shape, shape.limitedBonds(shape.fullBonds.map { Int.random(in: 1...$0, using: &generator) }))
  }

  @Test func `in the gauge compact no bonds take more numbers than the matrix, full bonds exactly as many`() throws {
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<500 {
      let (shape, bonds) = try random(&generator)
      let dense = shape.rows * shape.columns
      #expect(shape.storedCount(bonds: shape.fullBonds, gauge: .compact) == dense)
      #expect(shape.storedCount(bonds: bonds, gauge: .compact) <= dense)
    }
  }

  @Test(arguments: Gauge.allCases)
  func `a step saves the difference of the stored numbers, at least one`(gauge: Gauge) throws {
    var generator = SeededGenerator(seed: 2)
    var steps = 0
    for _ in 0..<200 {
      let (shape, bonds) = try random(&generator)
      let profile = LayerProfile(
        name: "w", split: MatrixSplit(rows: shape.rows, columns: shape.columns, shape: shape), norm: 1,
        spectra: SingularSpectra(shape.fullBonds.map { Array(repeating: 0.1, count: $0) }))
      let group = try SqueezeGroup(members: [0], of: [profile])
      let state = SqueezeState(group, bonds: bonds, gauge: gauge)
      for bond in bonds.indices {
        guard let step = state.step(at: bond, of: group, criterion: .error, minimumBond: 1) else { continue }
        var next = state
        next.take(step)
        #expect(next.parameters == shape.storedCount(bonds: next.bonds, gauge: gauge))
        #expect(step.saved >= 1 && step.saved == state.parameters - next.parameters)
        steps += 1
      }
    }
    #expect(steps > 200)
  }
}
