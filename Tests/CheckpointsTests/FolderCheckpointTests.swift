import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct FolderCheckpointTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A valid file with one U8 tensor of one byte.
  private func file(_ name: String, _ metadata: String = "{}") -> [UInt8] {
    safetensorsBytes(
      header: #"{"__metadata__":\#(metadata),"\#(name)":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
      dataByteCount: 1)
  }

  private func keras(_ name: String, _ tensors: String...) throws {
    let infos = tensors.map { TensorInfo(name: $0, dtype: .u8, shape: [2]) }
    let writer = try HDF5Writer(creating: folder.path + "/" + name, tensors: infos)
    for (number, info) in infos.enumerated() {
      try [UInt8(number), 7].withUnsafeBytes { try writer.write($0, to: info.name) }
    }
    try writer.finish()
  }

  private func refusal(_ name: String = "") -> String {
    message { try openDenseCheckpoint(at: folder.path + "/" + name) } ?? ""
  }

  @Test func `a pipeline is the weights of all its subfolders`() throws {
    try folder.write(file("w"), to: "unet/diffusion_pytorch_model.safetensors")
    try folder.write(file("w"), to: "text_encoder/model.safetensors")
    try folder.write("{}", to: "scheduler/scheduler_config.json")
    #expect(refusal().contains("its subfolders do: 'text_encoder', 'unet'; pass one of them"))
    try folder.write("{}", to: "model_index.json")
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(model.tensors.map(\.name) == ["text_encoder/w", "unet/w"])
    #expect(
      model.components.map(\.file) == ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"])
    #expect(model.companions == ["model_index.json", "scheduler/scheduler_config.json"])
    #expect(try model.bytes(of: "unet/w") == [0])
    #expect(model.notices == [])
  }

  @Test func `sharded Keras weights are one checkpoint`() throws {
    try keras("m_00000.weights.h5", "layers/a/vars/0")
    try keras("m_00001.weights.h5", "layers/a/vars/1", "layers/b/vars/0")
    try folder.write(
      #"{"weight_map":{"/layers/a/vars":["m_00000.weights.h5","m_00001.weights.h5"],"/layers/b/vars":"m_00001.weights.h5"}}"#,
      to: "model.weights.json")
    for path in ["", "model.weights.json"] {
      let model = try openDenseCheckpoint(at: folder.path + "/" + path)
      #expect(model.tensors.map(\.name) == ["layers/a/vars/0", "layers/a/vars/1", "layers/b/vars/0"])
      #expect(try model.bytes(of: "layers/b/vars/0") == [1, 7])
      #expect(model.companions == ["model.weights.json"])
      #expect(model.components.map(\.file) == ["m_00000.weights.h5", "m_00001.weights.h5"])
      #expect(model.notices == [])
    }
    let one = try openDenseCheckpoint(at: folder.path + "/m_00000.weights.h5")
    #expect(one.notices.count == 1 && one.notices[0].contains("one of several shards"))
    try keras("m_00002.weights.h5", "layers/c/vars/0", "layers/b/vars/0")
    try folder.write(
      #"{"weight_map":{"/layers/b/vars":"m_00001.weights.h5","/layers/c/vars":"m_00002.weights.h5"}}"#,
      to: "model.weights.json")
    #expect(
      refusal().contains(
        "tensor 'layers/b/vars/0': it is in shard 'm_00001.weights.h5' and in shard 'm_00002.weights.h5'"))
  }

  @Test func `variants of a component are left out, and single files beside the components are carried`() throws {
    for name in [
      "unet/diffusion_pytorch_model", "unet/diffusion_pytorch_model.fp16", "unet/diffusion_pytorch_model.non_ema",
    ] {
      try folder.write(file("a"), to: name + ".safetensors")
    }
    for name in ["te/model.safetensors.index.json", "te/model.safetensors.index.fp16.json"] {
      try folder.write(#"{"weight_map":{"a":"model-1.safetensors"}}"#, to: name)
    }
    try folder.write(file("a"), to: "te/model-1.safetensors")
    try folder.write(file("b"), to: "v1-5.safetensors")
    try folder.write(file("b"), to: "v1-5-pruned.safetensors")
    try folder.write("{}", to: "model_index.json")
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(
      model.components.map(\.file) == ["te/model.safetensors.index.json", "unet/diffusion_pytorch_model.safetensors"])
    #expect(
      model.companions == [
        "model_index.json", "te/model.safetensors.index.json", "v1-5-pruned.safetensors", "v1-5.safetensors",
      ])
    #expect(model.notices.contains { $0.contains("'unet/diffusion_pytorch_model.fp16.safetensors'") })
    // By itself nobody knows which of them is meant.
    #expect(refusal("unet").contains("holds several models") && refusal("unet").contains("fp16"))
  }

  @Test func `an adapter is not a copy of a model`() throws {
    for name in [
      "adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors", "pytorch_model.bin",
    ] {
      try folder.write(file("a"), to: name)
      try folder.write(file("a"), to: "x/" + name)
    }
    try folder.write(file("a"), to: "model.safetensors")
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(
      model.companions.filter { !$0.hasPrefix("x/") } == [
        "adapter_model.bin", "adapter_model.safetensors", "pytorch_lora_weights.safetensors",
      ])
    try FileManager.default.removeItem(atPath: folder.path + "/x/pytorch_lora_weights.safetensors")
    #expect(try openDenseCheckpoint(at: folder.path + "/x").companions == ["pytorch_model.bin"])
  }

  @Test func `a pipeline none of whose components can be read says why`() throws {
    try folder.write("{}", to: "model_index.json")
    for name in ["vae/a.safetensors", "vae/b.safetensors"] { try folder.write(file("a"), to: name) }
    #expect(refusal().contains("holds several models ('a.safetensors', 'b.safetensors')"))
  }

  @Test func `a component in a folder that is a link is read where links are followed`() throws {
    let outside = try TemporaryFolder()
    try outside.write(file("a"), to: "unet/model.safetensors")
    try outside.write("{}", to: "unet/config.json")
    try folder.write("{}", to: "model_index.json")
    try folder.write(file("a"), to: "vae/model.safetensors")
    try folder.link("unet", to: outside.path + "/unet")
    try folder.link("vae/loop", to: folder.path)
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(model.tensors.map(\.name) == ["vae/a"] && model.notices.contains { $0.contains("'unet'") })
    let whole = try openDenseCheckpoint(at: folder.path, followingLinks: true)
    #expect(whole.tensors.map(\.name) == ["unet/a", "vae/a"])
    #expect(whole.companions == ["model_index.json", "unet/config.json"])
  }

  @Test func `a folder with weights in another format only says which`() throws {
    try folder.write("GGUF\u{3}\0\0\0", to: "m.gguf")
    #expect(refusal().contains("in another format only: 'm.gguf' is a GGUF file"))
    try folder.write("onnx", to: "a.onnx")
    #expect(refusal().contains("'a.onnx' is neither a safetensors nor an HDF5 file; pass the original"))
  }

  @Test func `shards without their index are named with the remedy`() throws {
    try keras("m_00000.weights.h5", "layers/a/vars/0")
    let lone = try openDenseCheckpoint(at: folder.path)
    #expect(
      lone.notices == [
        "'m_00000.weights.h5' is, by its name, one of several shards and holds only part of a model; pass the index of the "
          + "shards (*.weights.json), which lies beside them"
      ])
    try keras("m_00001.weights.h5", "layers/a/vars/1")
    #expect(
      refusal().contains("shards of Keras weights ('m_00000.weights.h5', 'm_00001.weights.h5') without their index"))
    let other = try TemporaryFolder()
    for (name, count) in [("model-00001-of-00002", 1), ("model-00001-of-00001", 0)] {
      let path = try other.write(file("a"), to: "\(name)/\(name).safetensors")
      #expect(try openDenseCheckpoint(at: path).notices.count == count)
      #expect(try openDenseCheckpoint(at: other.path + "/" + name).notices.count == count)
    }
  }

  @Test(arguments: [
    (#"{"weight_map":{"/layers/c/vars":"m_00000.weights.h5"}}"#, "'layers/c/vars': the index places it in shard"),
    (#"{"weight_map":{"/layers/a/vars":"none.weights.h5"}}"#, "none.weights.h5: no such file"),
    (#"{"weight_map":{"/layers/a/vars":"../m.weights.h5"}}"#, "leaves the folder"),
    (#"{"weight_map":{"/layers/a/vars":1}}"#, "'/layers/a/vars': the weight_map does not map it to a file name"),
    (#"{"weight_map":{"/layers/a/vars":[1]}}"#, "'/layers/a/vars': the weight_map does not map it to a file name"),
    (#"{"weight_map":{"/layers/a/vars":[]}}"#, "'/layers/a/vars': the weight_map does not map it to a file name"),
    ("", "the index is empty"),
    (#"{"weight_map":{}}"#, "names no shard"), (#"{"weight_map":[]}"#, "its weight_map is not an object"),
    ("{}", "has no weight_map"),
    (#"{"weight_map":{"/layers/a/vars":"m_00000.weights.h5""#, "is not valid"),
    ("version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
    (#"{"weight_map":{"/layers/a/vars":"pointer.weights.h5"}}"#, "run 'git lfs pull'"),
  ])
  func `a damaged index of sharded Keras weights is refused`(text: String, expected: String) throws {
    try keras("m_00000.weights.h5", "layers/a/vars/0")
    try folder.write("version https://git-lfs.github.com/spec/v1\n", to: "pointer.weights.h5")
    try folder.write(text, to: "model.weights.json")
    #expect(refusal("model.weights.json").contains(expected), "\(refusal("model.weights.json"))")
  }

  @Test func `what stands in place of a shard or an index is named`() throws {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
    try folder.write(pointer, to: "s.safetensors")
    try folder.write(#"{"weight_map":{"a":"s.safetensors"}}"#, to: "model.safetensors.index.json")
    #expect(refusal().contains("s.safetensors: is a Git LFS pointer"))
    try folder.write(pointer, to: "model.safetensors.index.json")
    #expect(refusal().contains("index.json: is a Git LFS pointer"))
    try folder.write(#"{"weight_map":{"a":"pytorch_model-1.bin"}}"#, to: "pytorch_model.bin.index.json")
    #expect(refusal("pytorch_model.bin.index.json").contains("is the index of pickles"))
  }

  @Test func `a byte-order mark, metadata that are null and indices of variants are read`() throws {
    try folder.write(file("a", "null"), to: "model.fp16-00001-of-00001.safetensors")
    try folder.write(
      "\u{FEFF}" + #"{"weight_map":{"a":"model.fp16-00001-of-00001.safetensors"}}"#,
      to: "model.safetensors.index.fp16.json")
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(model.tensors.map(\.name) == ["a"])
    #expect(model.companions == ["model.safetensors.index.fp16.json"])
  }

  @Test func `links that leave are followed when asked`() throws {
    let outside = try TemporaryFolder()
    try outside.write(file("a"), to: "store/a")
    try outside.write("text", to: "store/b")
    try folder.link("model.safetensors", to: outside.path + "/store/a")
    try folder.link("notes", to: outside.path + "/store/b")
    #expect(refusal().contains("is a link that leaves the folder; replace it by the file"))
    let model = try openDenseCheckpoint(at: folder.path, followingLinks: true)
    #expect(model.tensors.map(\.name) == ["a"])
    #expect(model.companions == ["notes"])
    try folder.link("loop", to: folder.path)
    #expect(try openDenseCheckpoint(at: folder.path, followingLinks: true).companions == ["notes"])
  }
}
