import Checkpoints
import Foundation
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion
@testable import SqueezeLoop

/// Squeezes of checkpoints in every gauge, to every gauge.
@Suite struct SqueezeGaugeTests {
  private func loop(_ evaluate: String = SqueezeLoopTests.size, gauge: Gauge?, rounds: Int = 3) -> SqueezeLoop {
    var options = SqueezeOptions(evaluate: evaluate, limit: .maximumDrop(1e9))
    (options.step, options.gauge, options.maximumRounds) = (.fraction(0.08), gauge, rounds)
    return SqueezeLoop(options: options, jobs: 2, generator: "mpo test")
  }

  @Test(arguments: Gauge.allCases, [nil] + Gauge.allCases.map(Optional.some))
  func `operators keep their gauge, or get the one that is asked for`(input: Gauge, asked: Gauge?) throws {
    let place = try SqueezePlace()
    let given = try place.lossless(gauge: input)
    let result = try loop(gauge: asked).run(given, to: place.output)
    let output = try MPOCheckpoint(path: place.output)
    #expect(output.contents.operators.allSatisfy { $0.gauge == asked ?? input })
    #expect(output.manifest.totals.parametersStored == result.accepted.parameters)
    #expect(result.accepted.round == 3)
    for (previous, next) in zip(result.rounds, result.rounds.dropFirst()) {
      #expect(next.parameters < previous.parameters)
    }
    #expect(try Verifier(jobs: 2).verify(output, against: openDenseCheckpoint(at: place.model)).problems == [])
    // The same operator whatever the gauge: the bound of the bonds holds.
    let source = try MPOCheckpoint(path: given)
    for (old, new) in zip(source.contents.tensors, output.contents.tensors) {
      guard let a = old.blocks, let b = new.blocks else { continue }
      let (before, after): (Matrix<Double>, Matrix<Double>) = (try source.matrix(of: a), try output.matrix(of: b))
      #expect(relativeDifference(after.elements, before.elements) < 0.5)
    }
  }

  private func relativeDifference(_ a: [Double], _ b: [Double]) -> Double {
    (zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / b.reduce(0) { $0 + $1 * $1 }).squareRoot()
  }

  @Test(arguments: Gauge.allCases)
  func `a dense model becomes operators of the gauge, and the errors are measured`(gauge: Gauge) throws {
    let place = try SqueezePlace()
    _ = try loop(gauge: gauge).run(place.model, to: place.output)
    let output = try MPOCheckpoint(path: place.output)
    #expect(!output.contents.operators.isEmpty && output.contents.operators.allSatisfy { $0.gauge == gauge })
    let original = try openDenseCheckpoint(at: place.model)
    #expect(output.contents.tensors.compactMap(\.blocks).allSatisfy { $0.relativeError != nil })
    #expect(try Verifier(jobs: 2).verify(output, against: original).problems == [])
  }

  @Test(arguments: Gauge.allCases)
  func `a squeeze that was ended goes on to the same bytes`(gauge: Gauge) throws {
    let place = try SqueezePlace()
    let whole = place.path + "/whole.mpo"
    let evaluate = "test -e \(place.path)/fail && exit 1; \(SqueezeLoopTests.size)"
    let squeeze = loop(evaluate, gauge: gauge, rounds: 4)
    _ = try squeeze.run(place.model, to: whole)
    try place.endAfterTwoRounds(squeeze)
    try FileManager.default.removeItem(atPath: place.path + "/fail")
    _ = try squeeze.run(place.model, to: place.output, resuming: true)
    #expect(try place.content(of: place.output) == place.content(of: whole))
  }

  @Test(arguments: Gauge.allCases)
  func `fine-tuning that copies its input is given and gives the gauge`(gauge: Gauge) throws {
    let place = try SqueezePlace()
    var squeeze = loop(gauge: gauge)
    squeeze.options.finetune =
      "grep -q '\"gauge\" : \"\(gauge.rawValue)\"' {}/manifest.json && cp -r {} \"$MPO_OUTPUT\""
    _ = try squeeze.run(place.lossless(), to: place.output)
    let output = try MPOCheckpoint(path: place.output)
    #expect(output.contents.operators.allSatisfy { $0.gauge == gauge })
    #expect(try Verifier(jobs: 2).verify(output).problems == [])
  }

  @Test func `an operator is squeezed in its bases, which stay unchanged`() throws {
    let place = try SqueezePlace()
    let input = place.path + "/bases.mpo"
    try FileManager.default.createDirectory(atPath: input, withIntermediateDirectories: true)
    var generator = SeededGenerator(seed: 5)
    let (rows, columns) = (12, 16)
    let split = MatrixSplit(
      rows: rows, columns: columns, shape: try MPOShape(rowFactors: [3, 2, 2], columnFactors: [4, 2, 2]))
    let weight = Matrix<Double>(
      rows: rows, columns: columns,
      elements: (0..<rows * columns).map { _ in Double.random(in: -1...1, using: &generator) })
    let plain = OperatorRecord.ordinary(
      name: "w", split, bonds: split.shape.fullBonds, gauge: .compact, dtype: .f32)
    let record = OperatorRecord(
      name: "w", rows: rows, columns: columns, shape: split.shape, bonds: split.shape.fullBonds, gauge: .compact,
      cores: plain.operator.cores, rowBasis: .init(permutation: "p", scale: "s"), columnBasis: .init(basis: "u"))
    let others = [
      CoreRecord(name: "p", role: .permutation, shape: [rows], encoding: .plain(.u8)),
      CoreRecord(name: "s", role: .scale, shape: [rows], encoding: .plain(.f32)),
      CoreRecord(name: "u", role: .basis, shape: [columns, columns], encoding: .plain(.f32)),
    ]
    let tensor = TensorRecord(
      name: "w", dtype: .f32, shape: [rows, columns], orientation: .outputInput,
      storage: .blocks(BlockMatrix(whole: record)))
    let writer = try MPOCheckpointWriter(
      folder: input,
      contents: CheckpointContents(tensors: [tensor], operators: [record], cores: plain.cores + others))
    let chain = try weight.withView { try MPO(decomposing: $0, shape: split.shape, bonds: split.shape.fullBonds) }
    _ = try writer.write(chain.gauged(.compact), of: record)
    let permutation = (0..<rows).map { UInt8(rows - 1 - $0) }
    let scale = (0..<rows).map { Float($0 + 1) / 4 }
    // A reflection.
    let basis = (0..<columns * columns).map { Float($0 % (columns + 1) == 0 ? 1 : 0) - 2 / Float(columns) }
    func stored(_ core: CoreRecord) -> TensorRecord { TensorRecord(dense: core.entries[0]) }
    try permutation.withUnsafeBytes { try writer.write($0, of: stored(others[0])) }
    try scale.withUnsafeBytes { try writer.write($0, of: stored(others[1])) }
    try basis.withUnsafeBytes { try writer.write($0, of: stored(others[2])) }
    try writer.finish(generator: "tests", source: nil, conversion: nil)

    _ = try loop(gauge: .canonical, rounds: 1).run(input, to: place.output)
    let (before, after) = (try MPOCheckpoint(path: input), try MPOCheckpoint(path: place.output))
    let squeezed = try after.operator("w")
    #expect(squeezed.bonds != record.bonds && squeezed.gauge == .canonical)
    #expect(squeezed.rowBasis == record.rowBasis && squeezed.columnBasis == record.columnBasis)
    // The chain of the result is the truncated one, in the same bases.
    let truncated = try before.chain(record, as: Double.self).truncated(to: squeezed.bonds)
    let found: MPO<Double> = try after.chain(squeezed)
    #expect(
      relativeDifference(
        found.matrix(rows: rows, columns: columns).elements, truncated.matrix(rows: rows, columns: columns).elements)
        < 1e-6)
    let whole: Matrix<Double> = try before.matrix(record)
    let result: Matrix<Double> = try after.matrix(squeezed)
    #expect(relativeDifference(result.elements, whole.elements) < 0.5)
    #expect(try Verifier(jobs: 1).verify(after).problems == [])
  }

  @Test func `operators that share cores stay unchanged, with a warning for each`() throws {
    let place = try SqueezePlace()
    let input = fixtures + "/malformed/base.mpo"
    var warnings: [String] = []
    _ = try loop("echo 1", gauge: nil, rounds: 2).run(input, to: place.output) { event in
      if case .warning(let text) = event { warnings.append(text) }
    }
    for name in ["a.weight", "b.weight", "square.weight"] {
      #expect(warnings.count { $0.contains("'\(name)' shares cores") } == 1, "\(warnings)")
    }
    #expect(warnings.count == 3)
    let (before, after) = (try MPOCheckpoint(path: input), try MPOCheckpoint(path: place.output))
    for name in ["a.weight", "b.weight", "square.weight"] { #expect(try after.operator(name) == before.operator(name)) }
    #expect(after.manifest.totals.parametersStored < before.manifest.totals.parametersStored)
    #expect(try Verifier(jobs: 1).verify(after).problems == [])
  }

  @Test func `magnitudes whose squares vanish or overflow are squeezed as ordinary ones`() throws {
    let place = try SqueezePlace()
    let scales = [("a", 1.0), ("b", 1e-200), ("c", 1e200)]
    let tensors = scales.map { TensorInfo(name: $0.0, dtype: .f64, shape: [64, 64]) }
    let writer = try SafetensorsWriter(path: place.model, tensors: tensors, metadata: [:])
    for (name, scale) in scales {
      var generator = SeededGenerator(seed: 3)
      let elements = (0..<64 * 64).map {
        Double.random(in: -1...1, using: &generator) * pow(0.9, Double($0 % 64)) * scale
      }
      try elements.withUnsafeBytes { try writer.write($0, to: name) }
    }
    try writer.finish()
    for (index, input) in [place.model, place.path + "/0.mpo"].enumerated() {
      var warnings: [String] = []
      let output = place.path + "/\(index).mpo"
      let result = try loop(gauge: nil, rounds: 4).run(input, to: output) { event in
        if case .warning(let text) = event { warnings.append(text) }
      }
      #expect(warnings == [])
      #expect(result.rounds.dropFirst().allSatisfy { $0.predictedError?.isFinite == true })
      // The three matrices are the same but for their scale: their bonds fall together.
      let operators = try MPOCheckpoint(path: output).contents.operators
      #expect(operators.count == 3)
      let sums = operators.map { $0.bonds.reduce(0, +) }
      #expect((sums.max() ?? 0) - (sums.min() ?? 0) <= 6, "\(operators.map(\.bonds))")
      #expect(
        try Verifier(jobs: 1).verify(MPOCheckpoint(path: output), against: openDenseCheckpoint(at: place.model))
          .problems
          == [])
    }
  }
}
