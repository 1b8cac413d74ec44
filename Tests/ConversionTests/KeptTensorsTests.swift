import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import TestSupport
import Testing

@testable import Conversion

@Suite struct KeptTensorsTests {
  private func reason(
    _ name: String, _ dtype: DType = .f32, beside others: [TensorInfo] = [], quantized: Bool = false
  ) -> KeptTensors.Reason? {
    var configuration = ModelConfiguration()
    configuration.isQuantized = quantized
    let tensor = TensorInfo(name: name, dtype: dtype, shape: [64, 64])
    let weight = TensorInfo(name: "a.b.weight", dtype: .f32, shape: [64, 64])
    return KeptTensors([tensor, weight] + others, configuration).reason(for: tensor)
  }

  @Test(arguments: [
    "optimizer/vars/3", "optimizer_weights/adam/dense/kernel/m:0", "optimizer.state.0.exp_avg", "model_ema.x.weight",
    "optimizer_weights/training/Adam/x", "opt_state.0.mu.x", "layer/kernel/Adam_1", "ema.a.weight", "x.momentum_buffer",
    "a.b.weight_ema", "a_ema.b.weight",
  ])
  func `training state is recognised`(name: String) { #expect(reason(name) == .trainingState) }

  @Test(arguments: [
    "layers.0.self_attn.q_proj.weight", "schema.weight", "cinema.weight", "a.optimization.weight", "lora_A.weight",
    "momentum_encoder.layer.weight", "experts.gate_up_proj", "logit_scale.weight", "layer_scale.gamma",
    "mask_head.weight",
  ])
  func `weights are weights`(name: String) { #expect(reason(name) == nil) }

  @Test func `averages alone are a model`() {
    let tensor = TensorInfo(name: "ema.a.weight", dtype: .f32, shape: [64, 64])
    #expect(KeptTensors([tensor], ModelConfiguration()).reason(for: tensor) == nil)
  }

  @Test(arguments: [
    ("m.up.scales", "m.up.weight", DType.u32), ("m.up.biases", "m.up.weight", .u32),
    ("m.q.scales", "m.q.qweight", .i32),
    ("m.q.weight_scale", "m.q.weight_packed", .i32), ("m.q.weight_scale_inv", "m.q.weight", .f8E4M3),
    ("m.e.down_proj_scales", "m.e.down_proj_blocks", .u8), ("m.q.weight.absmax", "m.q.weight", .u8),
    ("m.q.codebooks", "m.q.codes", .i16), ("m.weight_scale_inv", "n", .u8),
  ])
  func `scales of quantised weights are recognised by their partner`(name: String, partner: String, dtype: DType) {
    #expect(reason(name, beside: [TensorInfo(name: partner, dtype: dtype, shape: [64, 64])]) == .quantization)
  }

  @Test func `scales of quantised weights are recognised by the configuration`() {
    #expect(reason("m.q.scales") == nil)
    #expect(reason("m.q.scales", quantized: true) == .quantization)
    #expect(reason("m.q.weight", quantized: true) == nil)
  }

  @Test(arguments: ["attn.causal_mask", "rotary.cos_cached", "stft.forward_basis_buffer", "h.0.attn.masked_bias"])
  func `buffers are recognised`(name: String) { #expect(reason(name) == .buffer) }

  @Test func `what is kept comes back as it was and no ratio counts training state`() throws {
    let folder = try TemporaryFolder()
    let matrix = (0..<64 * 64).map { Float(sin(Double($0 * $0))) }
    let mask = (0..<64 * 64).map { Float($0 / 64 >= $0 % 64 ? 1 : 0) }
    let infos = [
      "a.weight", "b.weight", "optimizer.exp_avg.a", "optimizer.exp_avg.b", "a.tri",
    ].map { TensorInfo(name: $0, dtype: .f32, shape: [64, 64]) }
    let path = folder.path + "/m.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: infos)
    for info in infos {
      try (info.name == "a.tri" ? mask : matrix.map { $0 * (info.name == "b.weight" ? 2 : 1) })
        .withUnsafeBytes { try writer.write($0, to: info.name) }
    }
    try writer.finish()
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.7)
    let said = Said()
    let output = folder.path + "/m.mpo"
    try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: false)
    let source = try openDenseCheckpoint(at: path)
    let options = ConversionOptions(jobs: 1, generator: "test", warning: { said.add($0) })
    let manifest = try convert(source, recipe: recipe, to: output, options: options)
    #expect(manifest.contents.tensors.map { $0.isDense } == [false, false, true, true, true])
    // Of the three tensors of the model, one of which is a mask, 0.7 are left.
    let stored = manifest.totals.parametersStored - 2 * 4096
    #expect(stored <= 3 * 4096 * 7 / 10)
    let restored = folder.path + "/r.safetensors"
    try Restorer(jobs: 1).restoreFile(MPOCheckpoint(path: output), to: restored)
    let result = try openDenseCheckpoint(at: restored)
    for info in infos.dropFirst(2) { #expect(try result.bytes(of: info.name) == source.bytes(of: info.name)) }
    #expect(said.all.contains { $0.contains("training state (8192 numbers), which no ratio counts") })
  }
}

/// What was said, from any thread.
private final class Said: @unchecked Sendable {
  private let lock = NSLock()
  private var texts: [String] = []
  var all: [String] { lock.withLock { texts } }
  func add(_ text: String) { lock.withLock { texts.append(text) } }
}
