import Checkpoints
import Foundation
import TestSupport
import Testing

@testable import MPOCheckpoints

/// A real model, all-MiniLM-L6-v2, as a folder named by the environment variable `MPO_MINILM`.
@Suite(.serialized, .enabled(if: MiniLM.folder != nil, "set MPO_MINILM to the folder that tools/fetch-minilm makes"))
struct MiniLMTests {
  private let temporary: TemporaryFolder
  private let model: String
  private let source: any DenseCheckpoint

  init() throws {
    temporary = try TemporaryFolder()
    model = try #require(MiniLM.folder)
    source = try openDenseCheckpoint(at: model)
  }

  @Test(arguments: [["--ratio", "0.5"], ["--lossless"]])
  func `the model is converted, verified and restored`(budget: [String]) throws {
    let output = temporary.path + "/minilm.mpo"
    let converted = try Tool.Run(["convert", model, "-o", output] + budget).finish()
    #expect(converted.status == 0 && converted.messages.isEmpty, "\(converted.messages)")
    let verified = try Tool.run("verify", output, "--against", model, "--json")
    #expect(verified.status == 0, "\(verified.output)")
    let errors = try #require(verified.json["relative_errors"] as? [String: Double])

    let checkpoint = try MPOCheckpoint(path: output)
    let records = checkpoint.contents.tensors
    let isLossless = budget == ["--lossless"]
    let stored = try openDenseCheckpoint(at: output + "/tensors.safetensors").tensors
      .filter { !$0.name.hasSuffix(".pivots") }.reduce(0) { $0 + $1.elementCount }
    let before = source.tensors.reduce(0) { $0 + $1.elementCount }
    #expect(checkpoint.manifest.totals.parametersStored == stored)
    if !isLossless { #expect(Double(stored) <= 0.5 * Double(before) && Double(stored) > 0.499 * Double(before)) }
    // Nothing redundant is stored: a lossless checkpoint has exactly the numbers of its source.
    if isLossless { #expect(stored == before) }
    // Pivots are chosen so that no stored number of an auxiliary core is large.
    for core in checkpoint.contents.cores where core.role == .auxiliary {
      let elements: [Float] = try checkpoint.elements(of: core)
      #expect(elements.allSatisfy { abs($0) <= 2 }, "\(core.name)")
    }
    #expect(records.count { $0.blocks != nil } >= 36)
    #expect(Set(errors.keys) == Set(records.filter { $0.blocks != nil }.map(\.name)))

    let path = temporary.path + "/restored"
    let restored = try Tool.run("restore", output, "-o", path)
    #expect(restored.status == 0 && restored.messages.isEmpty)
    let result = try openDenseCheckpoint(at: path)
    #expect(result.tensors == source.tensors)
    #expect(result.metadata == source.metadata && result.companions == source.companions)
    for record in records {
      guard let matrix = record.blocks else {
        let isEqual = try source.withBytes(of: record.info) { a in
          try result.withBytes(of: record.info) { b in a.elementsEqual(b) }
        }
        #expect(isEqual, "\(record.name)")
        continue
      }
      let error = try relativeDifference(result, record.info)
      #expect(abs(error - (try #require(matrix.relativeError))) < 1e-6, "\(record.name)")
      if isLossless { #expect(error == 0, "\(record.name)") }
    }
  }

  /// `‖Ŵ − W‖ / ‖W‖` of a tensor, element by element in double precision.
  private func relativeDifference(_ result: any DenseCheckpoint, _ tensor: TensorInfo) throws -> Double {
    try source.withFloats(of: tensor) { w in
      try result.withFloats(of: tensor) { x in
        var (distance, norm) = (0.0, 0.0)
        for index in w.indices {
          let difference = Double(x[index]) - Double(w[index])
          distance += difference * difference
          norm += Double(w[index]) * Double(w[index])
        }
        return (distance / norm).squareRoot()
      }
    }
  }
}

private enum MiniLM {
  static let folder = ProcessInfo.processInfo.environment["MPO_MINILM"].flatMap { $0.isEmpty ? nil : $0 }
}
