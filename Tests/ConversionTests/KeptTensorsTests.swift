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
    "a.b.weight_ema", "a_ema.b.weight", "d_optimizer/vars/4", "optimizer_G.state.a.exp_avg",
    "generator_optimizer/vars/2",
    "gan/d_optimizer/vars/3", "optimizer_G.a.b.weight", "exp_avg_sq.a.weight", "optimizer.state.exp_avg.a.b.weight",
    "optimizer.state.fp32_param.a.b.weight", "a.b.weight.m", "a.b.weight.v", "a.b.weight.momentum", "m.a.b.weight",
    "optim.a.b.weight.exp_avg", "optimizer_states.0.state.1.exp_avg", "state/param_states/a/b/v_row",
    "optimizer.a.b.weight.m", "moments.a.b.weight", "adam_m.a.b.weight", "a.b.weight_moment1_0",
    "optimizer.state.0.state1",
    "a.b.weight_exp_avg", "a.b.weight_momentum", "a_m.b.weight", "momentum_a.b.weight", "image_queue",
    "optimizer.fp32_from_fp16_params.0.3", "a.b.weight.exp_avg_sq_row",
  ])
  func `training state is recognised`(name: String) { #expect(reason(name) == .trainingState) }

  @Test(arguments: [
    "layers.0.self_attn.q_proj.weight", "schema.weight", "cinema.weight", "a.optimization.weight", "lora_A.weight",
    "momentum_encoder.layer.weight", "experts.gate_up_proj", "logit_scale.weight", "layer_scale.gamma",
    "mask_head.weight", "layers/optimizer/vars/0", "model_weights/optimizer/optimizer/kernel:0", "optimizer.weight",
    "optimizer/optimizer/kernel:0", "model.optimizer.fc.weight", "encoder.momentum", "c.weight.m", "vector.v",
    "visual_encoder_m.weight", "encoder_k.weight", "adam.weight", "memory_m.weight", "x.queue.weight",
    "layers/d_optimizer/vars/0", "model.layers.3.mlp.momentum.weight",
  ])
  func `ordinary weights are not taken for training state`(name: String) { #expect(reason(name) == nil) }

  @Test func `a copy of a module counts only as a whole`() {
    func info(_ name: String, _ shape: [Int] = [64, 64]) -> TensorInfo {
      TensorInfo(name: name, dtype: .f32, shape: shape)
    }
    let model = ["x.a.weight", "x.b.weight"].map { info($0) }
    let copy = ["x_m.a.weight", "x_m.b.weight"].map { info($0) }
    #expect(KeptTensors(model + copy, ModelConfiguration()).reason(for: copy[0]) == .trainingState)
    let other = info("x_m.c.weight")
    #expect(KeptTensors(model + copy + [other], ModelConfiguration()).reason(for: copy[0]) == nil)
    let smaller = info("x_m.b.weight", [32, 64])
    #expect(KeptTensors(model + [copy[0], smaller], ModelConfiguration()).reason(for: copy[0]) == nil)
  }

  @Test func `a model of averages alone is a model`() {
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

  @Test(arguments: [
    ("attn.relative_position_bias_table", "attn.relative_position_index", DType.i32),
    ("attn.in_proj_weight", "attn.mask", .u8), ("attn.c_attn_table", "attn.bias", .u8),
    ("emb.table", "emb.token_ids", .i32),
    ("m.q.lora_A", "m.q.weight", .u8), ("m.q.in_proj_weight", "m.q.qweight", .i32),
  ])
  func `weights beside tables of integers are weights`(name: String, partner: String, dtype: DType) {
    #expect(reason(name, beside: [TensorInfo(name: partner, dtype: dtype, shape: [64, 64])]) == nil)
  }

  @Test(arguments: [
    ("m.q.centroids.weight", "m.q.indices", DType.u16, true), ("m.q.weight_scale_2", "m.q.weight", .u8, false),
    ("m.q.scale", "m.q.W_q", .u8, false), ("m.q.SCB", "m.q.weight", .i8, false),
    ("m.q.weight_scale", "m.q.weight_qdata", .i8, false), ("m.q.zeros", "m.q.qweight", .i32, false),
    ("m.q.some_table_of_its", "m.q.qweight", .i32, false),
  ])
  func `parts of quantised weights of other libraries are recognised`(
    name: String, partner: String, dtype: DType, isQuantized: Bool
  ) {
    let weight = TensorInfo(name: partner, dtype: dtype, shape: [256, 256])
    #expect(reason(name, beside: [weight], quantized: isQuantized) == .quantization)
  }

  @Test func `scales of quantised weights are recognised by the configuration`() {
    #expect(reason("m.q.scales") == nil)
    #expect(reason("m.q.scales", quantized: true) == .quantization)
    #expect(reason("m.q.weight", quantized: true) == nil)
  }

  @Test(arguments: [
    "attn.causal_mask", "rotary.cos_cached", "stft.forward_basis_buffer", "h.0.attn.masked_bias", "mel_scale.fb",
    "stft.forward_basis",
  ])
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
    #expect(manifest.totals.parametersStored <= 3 * 4096 * 7 / 10)
    #expect(manifest.totals.parametersBefore == 3 * 4096 && manifest.totals.parametersOfTraining == 2 * 4096)
    let restored = folder.path + "/r.safetensors"
    try Restorer(jobs: 1).restoreFile(MPOCheckpoint(path: output), to: restored)
    let result = try openDenseCheckpoint(at: restored)
    for info in infos.dropFirst(2) { #expect(try result.bytes(of: info.name) == source.bytes(of: info.name)) }
    #expect(said.all.contains { $0.contains("training state (8192 numbers, counted in no ratio) and stored") })
  }
}

extension KeptTensorsTests {
  /// A checkpoint of matrices [64, 64], by name.
  private func model(_ matrices: [(String, [Float])], _ folder: TemporaryFolder) throws -> any DenseCheckpoint {
    let infos = matrices.map { TensorInfo(name: $0.0, dtype: .f32, shape: [64, 64]) }
    let path = folder.path + "/m.safetensors"
    let writer = try SafetensorsWriter(path: path, tensors: infos)
    for (name, values) in matrices { try values.withUnsafeBytes { try writer.write($0, to: name) } }
    try writer.finish()
    return try openDenseCheckpoint(at: path)
  }

  private func elements(_ element: (Int, Int) -> Double) -> [Float] {
    (0..<64).flatMap { row in (0..<64).map { Float(element(row, $0)) } }
  }

  @Test func `tables of sines and cosines are recognised by their elements`() throws {
    func angle(_ row: Int, _ pair: Int) -> Double { Double(row) / pow(10000, Double(pair) / 32) }
    let noise = elements { sin(Double(1 + $0 * 64 + $1) * 12.9898) }
    let source = try model(
      [
        ("side.by.side", elements { $1 % 2 == 0 ? sin(angle($0, $1 / 2)) : cos(angle($0, $1 / 2)) }),
        ("halves", elements { $1 < 32 ? sin(angle($0, $1)) : cos(angle($0, $1 - 32)) }),
        ("padded", elements { $0 == 0 ? 0 : $1 < 32 ? cos(angle($0, $1)) : sin(angle($0, $1 - 32)) }),
        (
          "two.axes",
          elements { row, column in
            let position = column < 32 ? row / 8 : row % 8
            return column % 32 < 16 ? sin(angle(position, column % 16)) : cos(angle(position, column % 16))
          }
        ), ("learnt", noise), ("zeros", elements { _, _ in 0 }),
        ("signs", elements { ($0 * $0 + $1) % 3 == 0 ? 0.5.squareRoot() : -0.5.squareRoot() }),
        ("learnt.further", elements { ($1 % 2 == 0 ? sin(angle($0, $1 / 2)) : cos(angle($0, $1 / 2))) * 1.01 }),
      ], TemporaryFolder())
    let kept = try KeptTensors(of: source, ModelConfiguration())
    #expect(
      source.tensors.map { kept.reason(for: $0) } == [.buffer, .buffer, .buffer, .buffer, nil, nil, nil, nil])
  }

  @Test func `what is included by its whole name is a weight`() throws {
    let folder = try TemporaryFolder()
    let noise = (0..<4).map { seed in elements { sin(Double(1 + $0 * 64 + $1) * (12.9898 + Double(seed))) } }
    let source = try model(
      [("a.weight", noise[0]), ("x.window", noise[1]), ("exp_avg.a.weight", noise[2])], folder)
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.5)
    recipe.selection.include = ["a.weight", "x.window"]
    let output = try folder.folder("m.mpo")
    let options = ConversionOptions(jobs: 1, generator: "test")
    let manifest = try convert(source, recipe: recipe, to: output, options: options)
    #expect(manifest.contents.tensors.map(\.isDense) == [false, false, true])
    #expect(manifest.contents.tensors.map(\.isTrainingState) == [false, false, true])
    #expect(manifest.totals.parametersBefore == 2 * 4096 && manifest.totals.parametersOfTraining == 4096)
    #expect(manifest.totals.ratio <= 0.5)
    #expect(try MPOCheckpoint(path: output).manifest.totals == manifest.totals)

    recipe.selection.include = []
    recipe.selection.exclude = ["*.window"]
    _ = try ConversionPipeline(source, recipe: recipe, options: options).profile()
    recipe.selection = TensorSelection()
    recipe.selection.include = ["*.window"]
    let refusal = message { try ConversionPipeline(source, recipe: recipe, options: options).profile() }
    #expect(refusal?.contains("'x.window' (masks and other buffers)") == true, "\(refusal ?? "")")
  }
}

/// What was said, from any thread.
private final class Said: @unchecked Sendable {
  private let lock = NSLock()
  private var texts: [String] = []
  var all: [String] { lock.withLock { texts } }
  func add(_ text: String) { lock.withLock { texts.append(text) } }
}
