import Checkpoints
import Foundation
import TestSupport
import Testing

/// Masks from the command line.
@Suite struct MaskToolTests {
  private let temporary: TemporaryFolder
  private let bert = fixtures + "/tiny-bert"

  init() throws { temporary = try TemporaryFolder() }

  private func path(_ name: String) -> String { temporary.path + "/" + name }

  @discardableResult
  private func run(_ arguments: [String], at location: SourceLocation = #_sourceLocation) throws -> Tool.Result {
    let result = try Tool.Run(arguments).finish()
    #expect(result.status == 0, "\(arguments): \(result.messages)", sourceLocation: location)
    return result
  }

  /// Masks of all matrices but the embeddings, as bytes.
  private func writeMask(_ name: String, seed: UInt64) throws -> String {
    var generator = SeededGenerator(seed: seed)
    let masks = try openDenseCheckpoint(at: bert).tensors.filter { $0.shape.count == 2 && !$0.name.contains("embed") }
      .map { TensorInfo(name: $0.name, dtype: .u8, shape: $0.shape) }
    let writer = try SafetensorsWriter(path: path(name), tensors: masks)
    for mask in masks {
      let values = (0..<mask.elementCount).map { _ in UInt8.random(in: 0...1, using: &generator) }
      try values.withUnsafeBytes { try writer.write($0, to: mask.name) }
    }
    try writer.finish()
    return path(name)
  }

  @Test(arguments: ["sides", "elements"])
  func `a recipe with a mask makes the bytes that its options make, by stages and in parts too`(weights: String) throws
  {
    let mask = try writeMask("m.safetensors", seed: 1)
    let options = ["--mask", mask, "--mask-weights", weights]
    let first = try run(["convert", bert, "-o", path("a.mpo"), "--ratio", "0.6"] + options)
    #expect(first.messages.contains("matrices have no mask") && first.output.contains("  in metric   "))
    try run(["convert", bert, "-o", path("b.mpo"), "--like", path("a.mpo"), "--mask", mask, "--jobs", "1"])
    let recipe = try run(["inspect", path("a.mpo"), "--recipe"]).output
    #expect(recipe.contains("\nmask:\n  source: ") && recipe.contains("  weights: \(weights)\n"))
    try Data(recipe.utf8).write(to: URL(filePath: path("r.yaml")))
    try run(["convert", bert, "-o", path("c.mpo"), "--recipe", path("r.yaml"), "--mask", mask])
    for part in 1...2 { try run(["profile", bert, "-o", path("p\(part).json"), "--part", "\(part)/2"] + options) }
    try run(["plan", path("p1.json"), path("p2.json"), "-o", path("plan.json"), "--ratio", "0.6"])
    for part in 1...2 {
      try run([
        "convert", bert, "-o", path("\(part).mpo"), "--plan", path("plan.json"), "--part", "\(part)/2", "--mask", mask,
      ])
    }
    try run(["merge", path("1.mpo"), path("2.mpo"), "-o", path("d.mpo")])
    for other in ["b", "c", "d"] {
      #expect(try Tool.shell("diff -r '\(path("a.mpo"))' '\(path(other + ".mpo"))'").status == 0, "\(other)")
    }
    try run(["verify", path("a.mpo"), "--against", bert])
    #expect(try run(["inspect", path("a.mpo")]).output.contains("\nmask: SHA-256 "))

    let like = ["convert", bert, "-o", path("x.mpo"), "--like", path("a.mpo")]
    expectFailure(try Tool.Run(like).finish(), "but none was given: pass the same file with --mask")
    let other = try writeMask("other.safetensors", seed: 2)
    expectFailure(
      try Tool.Run(like + ["--mask", other]).finish(), "other.safetensors has SHA-256", "pass the same file with --mask"
    )
  }

  @Test func `inspect shows what a mask keeps of each matrix`() throws {
    let mask = try writeMask("m.safetensors", seed: 1)
    let name = "encoder.layer.0.output.dense.weight"
    let text = try run(["inspect", bert, "--mask", mask]).output
    for part in ["masked by \(mask)", "for 90 %", "unmasked", name, "kept        "] { #expect(text.contains(part)) }
    let json = try run(["inspect", bert, "--mask", mask, "--json"]).output
    let matrices = try #require(JSONSerialization.jsonObject(with: Data(json.utf8)) as? [[String: Any]])
    let matrix = try #require(matrices.first { $0["name"] as? String == name })
    let (rows, columns) = (try #require(matrix["rows"] as? Int), try #require(matrix["columns"] as? Int))
    let kept = Double(try #require(matrix["kept"] as? Int)) / Double(rows * columns)
    #expect(abs(kept - 0.5) < 0.05 && matrix["rank"] as? Int == min(rows, columns))
    let spectra = try [[], ["--mask", mask]].map {
      try run(["inspect", bert, "--tensor", name, "--spectrum", "--json"] + $0).output
    }
    #expect(spectra[0] != spectra[1])
    expectFailure(
      try Tool.run("inspect", bert, "--mask", "zeros"), "has no zeros in the matrices that are decomposed",
      "leave it out")
    expectFailure(
      try Tool.run("convert", bert, "-o", path("x.mpo"), "--ratio", "0.6", "--mask", "zeros"), "has no zeros")
    #expect(!FileManager.default.fileExists(atPath: path("x.mpo")))
  }

  @Test func `the variance of element weights is shown`() throws {
    let weights = TensorInfo(name: "w.element_weights", dtype: .f32, shape: [2, 2])
    let writer = try SafetensorsWriter(
      path: path("s.safetensors"), tensors: [weights], metadata: ["format": "mpo-statistics", "version": "2"])
    try [Float(0), 2, 2, 0].withUnsafeBytes { try writer.write($0, to: weights.name) }
    try writer.finish()
    let text = try run(["inspect", path("s.safetensors")]).output
    #expect(
      text.contains("within rows\n") && text.contains("element weights 2×2") && text.contains("1.00         1.00\n"))
  }
}
