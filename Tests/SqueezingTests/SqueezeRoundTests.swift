import TensorNetworks
import TestSupport
import Testing

@testable import Squeezing

@Suite struct SqueezeRoundTests {
  /// A network, some of it dense, some in cores at random bonds, with falling spectra.
  private struct Network {
    var layers: [SqueezeRound.Layer] = []
    var ties: [[Int]] = []

    init(seed: UInt64, dense: Bool = false, tied: Bool = false, floors: Bool = false) throws {
      var generator = SeededGenerator(seed: seed)
      let shapes = [
        try MPOShape(rowFactors: [2, 3, 2], columnFactors: [3, 2, 2]),
        try MPOShape(rowFactors: [2, 2, 2, 2], columnFactors: [2, 2, 2, 2]),
        MPOShape.lowRank(rows: 9, columns: 7),
      ]
      for index in 0..<5 {
        let shape = tied && index < 3 ? shapes[0] : shapes[index % shapes.count]
        let bonds =
          tied && (1...2).contains(index)
          ? layers[0].bonds
          : shape.limitedBonds(shape.fullBonds.map { Int.random(in: (($0 + 1) / 2)...$0, using: &generator) })
        let isDense = dense && index != 3
        let counts = isDense ? shape.fullBonds : bonds ?? shape.fullBonds
        let spectra = counts.map { count in
          (0..<count).map { _ in Double.random(in: 0.01...2, using: &generator) }.sorted(by: >)
        }
        let norm = spectra[0].reduce(0) { $0 + $1 * $1 }.squareRoot()
        layers.append(
          SqueezeRound.Layer(
            profile: LayerProfile(
              name: "layer.\(index)", split: MatrixSplit(rows: shape.rows, columns: shape.columns, shape: shape),
              norm: norm, spectra: SingularSpectra(spectra)),
            bonds: isDense ? nil : bonds, minimumBond: floors ? 1 + index % 3 : 1))
      }
      if tied { ties = [[0, 1, 2]] }
    }
  }

  /// What lowering `bond` of the group by one costs, and saves in all members, straight from the definitions.
  private func step(
    _ members: [SqueezeRound.Layer], _ bonds: [Int], _ bond: Int, grown: Double, _ criterion: SqueezeCriterion,
    _ gauge: Gauge
  ) -> (cost: Double, growth: Double, saved: Int)? {
    let shape = members[0].profile.shape
    var lowered = bonds
    lowered[bond] -= 1
    guard lowered[bond] >= members.map(\.minimumBond).max() ?? 1, lowered[bond] >= 1,
      shape.limitedBonds(lowered) == lowered
    else { return nil }
    let growth = members.reduce(0) { sum, layer in
      let value = (layer.profile.spectra?.spectra[bond][lowered[bond]] ?? .infinity) / layer.profile.norm
      return sum + value * value
    }
    let saved =
      (shape.storedCount(bonds: bonds, gauge: gauge) - shape.storedCount(bonds: lowered, gauge: gauge)) * members.count
    let cost =
      switch criterion {
      case .error: (grown + growth).squareRoot() - grown.squareRoot()
      case .errorPerParameter: growth * Double(shape.rows * shape.columns) / Double(saved)
      }
    return (cost, growth, saved)
  }

  @Test(arguments: SqueezeCriterion.allCases, [(false, false), (true, false), (false, true), (true, true)])
  func `steps come in the order of a search through all bonds`(
    criterion: SqueezeCriterion, kind: (tied: Bool, floors: Bool)
  ) throws {
    for seed in 1...9 {
      let gauge = Gauge.allCases[seed % 3]
      let network = try Network(seed: UInt64(seed), tied: kind.tied, floors: kind.floors)
      let round = try SqueezeRound(network.layers, ties: network.ties, criterion: criterion, gauge: gauge)
      let groups = (kind.tied ? [[0, 1, 2], [3], [4]] : (0..<5).map { [$0] }).map { group in
        group.map { network.layers[$0] }
      }
      var bonds = groups.map { $0[0].bonds ?? [] }
      var grown = groups.map { _ in 0.0 }
      var saved = 0
      while true {
        // Nothing anywhere is cheaper than what is taken: all of it is looked at.
        var best: (cost: Double, growth: Double, saved: Int, group: Int, bond: Int)?
        for (index, members) in groups.enumerated() {
          for bond in bonds[index].indices {
            guard let step = step(members, bonds[index], bond, grown: grown[index], criterion, gauge) else { continue }
            if step.cost < best?.cost ?? .infinity { best = (step.cost, step.growth, step.saved, index, bond) }
          }
        }
        guard let best else { break }
        bonds[best.group][best.bond] -= 1
        grown[best.group] += best.growth
        saved += best.saved
        let plan = try #require(round.plan(saving: saved))
        #expect(plan.parameters == round.parameters - saved)
        for (index, members) in groups.enumerated() {
          for member in members {
            let layer = try #require(network.layers.firstIndex { $0.profile.name == member.profile.name })
            #expect(plan.bonds[layer] == bonds[index])
          }
        }
      }
      let last = try #require(round.plan(saving: .max / 2))
      #expect(last.parameters == round.parameters - saved)
    }
  }

  @Test func `the predicted error is that of the tails of the spectra`() throws {
    let network = try Network(seed: 20)
    let round = try SqueezeRound(network.layers)
    let plan = try #require(round.plan(saving: 60))
    var (error, norm) = (0.0, 0.0)
    for (layer, bonds) in zip(network.layers, plan.bonds) {
      for (spectrum, bond) in zip(layer.profile.spectra?.spectra ?? [], try #require(bonds)) {
        error += spectrum.dropFirst(bond).reduce(0) { $0 + $1 * $1 }
      }
      norm += layer.profile.norm * layer.profile.norm
    }
    #expect(abs(plan.relativeErrorBound - (error / norm).squareRoot()) < 1e-12)
  }

  @Test(arguments: SqueezeCriterion.allCases)
  func `a dense matrix becomes cores only where they are smaller`(criterion: SqueezeCriterion) throws {
    for seed in 30...36 {
      let network = try Network(seed: UInt64(seed), dense: true)
      let round = try SqueezeRound(network.layers, criterion: criterion)
      var previous = round.parameters
      for saving in stride(from: 1, through: round.parameters, by: 7) {
        let plan = try #require(round.plan(saving: saving))
        #expect(plan.parameters <= previous)
        previous = plan.parameters
        var sum = 0
        for (layer, bonds) in zip(network.layers, plan.bonds) {
          let dense = layer.profile.denseParameterCount
          if let bonds {
            let parameters = layer.profile.shape.storedCount(bonds: bonds, gauge: .compact)
            #expect(layer.bonds != nil || parameters < dense)
            #expect(layer.profile.shape.limitedBonds(bonds) == bonds)
            sum += parameters
          } else {
            #expect(layer.bonds == nil)
            sum += dense
          }
        }
        #expect(sum == plan.parameters)
        if round.parameters - plan.parameters < saving { break }
      }
    }
  }

  @Test func `a network at its floors has no plan`() throws {
    let network = try Network(seed: 40)
    let layers = network.layers.map {
      SqueezeRound.Layer(profile: $0.profile, bonds: $0.bonds, minimumBond: 1000)
    }
    #expect(try SqueezeRound(layers).plan(saving: 1) == nil)
  }

  @Test func `tied matrices of different shapes are refused, of different bonds go on from the lowest`() throws {
    let network = try Network(seed: 50)
    #expect(throws: SqueezeError.tiedShapesDiffer("layer.0", "layer.1")) {
      try SqueezeRound(network.layers, ties: [[0, 1]])
    }
    let shape = network.layers[0].profile.shape
    let lower = shape.limitedBonds((network.layers[0].bonds ?? []).map { max(1, $0 - 2) })
    let tied = [
      network.layers[0], SqueezeRound.Layer(profile: network.layers[0].profile, bonds: lower, minimumBond: 1),
    ]
    let plan = try #require(try SqueezeRound(tied, ties: [[0, 1]]).plan(saving: 1))
    #expect(plan.bonds[0] == plan.bonds[1])
    #expect(zip(plan.bonds[0] ?? [], lower).allSatisfy { $0 <= $1 })
  }
}
