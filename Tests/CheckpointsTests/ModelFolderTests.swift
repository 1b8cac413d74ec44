import Foundation
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct ModelFolderTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A valid file with U8 tensors of one byte.
  private func file(_ names: String...) -> [UInt8] {
    let tensors = names.enumerated().map { index, name in
      #""\#(name)":{"dtype":"U8","shape":[1],"data_offsets":[\#(index),\#(index + 1)]}"#
    }
    return safetensorsBytes(header: "{\(tensors.joined(separator: ","))}", dataByteCount: names.count)
  }

  private func refusal(_ path: String? = nil) -> String? {
    message { try openDenseCheckpoint(at: path ?? folder.path) }
  }

  private func index(_ map: [String: String]) -> String {
    let pairs = map.map { "\(jsonString($0.key)):\(jsonString($0.value))" }
    return "{\"metadata\":{\"total_size\":1},\"weight_map\":{\(pairs.joined(separator: ","))}}"
  }

  // MARK: - Fixtures

  @Test func `the model folder by the safetensors package is opened with its companions`() throws {
    let model = try openDenseCheckpoint(at: fixtures + "/tiny-bert/")
    #expect(model.format == .safetensors)
    #expect(model.folder == fixtures + "/tiny-bert")
    #expect(model.companions == ["1_Pooling/config.json", "config.json", "tokenizer_config.json", "vocab.txt"])
    #expect(model.metadata == ["format": "pt"])
    #expect(model.files == [fixtures + "/tiny-bert/model.safetensors"])
    #expect(model.tensor(named: "embeddings.word_embeddings.weight")?.shape == [997, 128])
    #expect(
      try model.bytes(of: "embeddings.word_embeddings.weight") == model.bytes(of: "cls.predictions.decoder.weight"))
  }

  @Test(arguments: ["tiny-bert-sharded", "tiny-bert-sharded/model.safetensors.index.json"])
  func `the sharded model by the safetensors package is opened`(name: String) throws {
    let model = try openDenseCheckpoint(at: fixtures + "/" + name)
    #expect(
      model.files.map { ($0 as NSString).lastPathComponent } == (1...3).map { "model-0000\($0)-of-00003.safetensors" })
    #expect(model.tensors.count == 24)
    #expect(model.metadata == ["format": "pt"])
    #expect(model.companions.count == (name.hasSuffix(".json") ? 0 : 5))
    let positions = try #require(model.tensor(named: "embeddings.position_ids"))
    #expect(positions.dtype == .i64)
    let bytes = try model.withBytes(of: positions, in: 8..<16) { Array($0) }
    #expect(bytes == [1, 0, 0, 0, 0, 0, 0, 0])
    let weight = try #require(model.tensor(named: "encoder.layer.0.intermediate.dense.weight"))
    #expect(weight.dtype == .bf16 && weight.shape == [128, 64])
    #expect(try model.withFloats(of: weight) { $0.allSatisfy { $0.isFinite && abs($0) < 1 } })
  }

  // MARK: - Sharded models

  @Test func `the index decides what is read of which shard`() throws {
    let path = folder.path + "/model.safetensors.index.json"
    try folder.write(file("a", "b"), to: "1.safetensors")
    try folder.write(file("c"), to: "2.safetensors")
    func refusal(_ map: [String: String]) throws -> String? {
      try folder.write(index(map), to: "model.safetensors.index.json")
      return message { try ShardedSafetensors(indexPath: path) }
    }
    let good = ["a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"]
    #expect(try refusal(good) == nil)
    let missing = try refusal(good.merging(["d": "2.safetensors"]) { $1 })
    #expect(missing?.contains("'d': the index places it in shard '2.safetensors', which does not hold it") == true)
    #expect(try refusal(good.filter { $0.key != "b" }) == nil)
    let unlisted = try ShardedSafetensors(indexPath: path)
    #expect(unlisted.tensors.map(\.name) == ["a", "c"])
    #expect(unlisted.notices.count == 1 && unlisted.notices[0].contains("'b' of '1.safetensors'"))
    let elsewhere = try refusal(good.merging(["b": "2.safetensors"]) { $1 })
    #expect(elsewhere?.contains("'b': the index places it in shard '2.safetensors', which does not hold it") == true)
    let absent = try refusal(good.merging(["d": "3.safetensors"]) { $1 })
    #expect(absent?.contains("3.safetensors: no such file") == true)
    try folder.write(file("c", "a"), to: "2.safetensors")
    #expect(try refusal(good) == nil)
    let superseded = try ShardedSafetensors(indexPath: path)
    #expect(superseded.tensors.map(\.name) == ["a", "b", "c"])
    #expect(try superseded.bytes(of: "a") == [0])
    #expect(superseded.notices.count == 1 && superseded.notices[0].contains("'a' of '2.safetensors'"))
    let spelled = good.merging(["a": "./1.safetensors", "c": "x/../2.safetensors"]) { $1 }
    #expect(try refusal(spelled)?.contains("leaves the folder") == true)
    #expect(try refusal(good.merging(["a": "./1.safetensors"]) { $1 }) == nil)
  }

  @Test(arguments: [
    ("", "the index is empty"), ("[]", "not a JSON object"), ("{}", "no weight_map"),
    (#"{"weight_map":[]}"#, "weight_map is not an object"),
    (#"{"weight_map":{"a":1}}"#, "'a': the weight_map does not map it to a file name"),
    (#"{"weight_map":{"a":"x","a":"x"}}"#, "'a' occurs twice"),
    (#"{"weight_map":{}"#, "',' or '}' was expected"),
  ])
  func `a malformed index is refused`(text: String, expected: String) throws {
    let path = try folder.write(text, to: "model.safetensors.index.json")
    let found = try #require(message { try ShardedSafetensors(indexPath: path) })
    #expect(found.contains(expected), "\(found)")
  }

  @Test(arguments: [
    "/etc/passwd", "../x.safetensors", "a/../../x.safetensors", "", "x\u{0}.safetensors", "link", ".", "dir",
  ])
  func `a shard outside the folder is refused`(name: String) throws {
    let outside = try TemporaryFolder()
    try outside.write(file("a"), to: "x.safetensors")
    try folder.link("link", to: outside.path + "/x.safetensors")
    try folder.link("dir", to: outside.path)
    let path = try folder.write(
      index(["a": name == "dir" ? "dir/x.safetensors" : name]), to: "m.safetensors.index.json")
    guard
      case .unsupported = #expect(
        throws: CheckpointError.self,
        performing: {
          try ShardedSafetensors(indexPath: path)
        })
    else {
      Issue.record("\(name) was not refused as leaving the folder")
      return
    }
  }

  @Test func `links inside the folder and into the blobs of a Hugging Face cache are followed`() throws {
    let snapshot = "models--a--b/snapshots/0123"
    try folder.write(file("a"), to: "models--a--b/blobs/77")
    try folder.write(file("b"), to: "\(snapshot)/shards/b.safetensors")
    try folder.write("{}", to: "models--a--b/blobs/78")
    try folder.write("secret", to: "models--a--b/other")
    try folder.link("\(snapshot)/a.safetensors", to: "../../blobs/77")
    try folder.link("\(snapshot)/b.safetensors", to: "shards/b.safetensors")
    try folder.link("\(snapshot)/config.json", to: "../../blobs/78")
    try folder.link("\(snapshot)/leak.json", to: "../../other")
    try folder.write(
      index(["a": "a.safetensors", "b": "b.safetensors"]), to: "\(snapshot)/model.safetensors.index.json")
    let model = try openDenseCheckpoint(at: folder.path + "/" + snapshot)
    #expect(model.tensors.map(\.name) == ["a", "b"])
    #expect(model.companions == ["config.json", "model.safetensors.index.json", "shards/b.safetensors"])
  }

  // MARK: - Folders

  @Test func `the weights of a folder are found`() throws {
    try folder.write(file("other"), to: "z.safetensors")
    #expect(try openDenseCheckpoint(at: folder.path).tensors.map(\.name) == ["other"])
    try folder.write(file("another"), to: "y.safetensors")
    #expect(refusal()?.contains("holds several models ('y.safetensors', 'z.safetensors'); pass the path") == true)
    try folder.write(index(["other": "z.safetensors"]), to: "x.safetensors.index.json")
    #expect(try openDenseCheckpoint(at: folder.path).tensors.map(\.name) == ["other"])
    try folder.write(file("model"), to: "model.safetensors")
    #expect(try openDenseCheckpoint(at: folder.path).tensors.map(\.name) == ["model"])
  }

  @Test func `what stands beside the weights is a companion, or is named as left out`() throws {
    let outside = try TemporaryFolder()
    try outside.write("secret", to: "secret.txt")
    try folder.write(file("a"), to: "model.safetensors")
    for name in [
      "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx",
      "model.pt", "rust_model.ot", "m.gguf", "tf_model.H5", ".git/config",
    ] {
      try folder.write("x", to: name)
    }
    let carried = [
      ".hidden", "2_Dense/model.safetensors", "README.md", "a b.txt", "b/c/d.json", "labels.pkl", "manifest.json",
      "mean.npy", "optimizer.pt", "training_args.bin", "vocab.bin", "x.index.json",
    ]
    for name in carried { try folder.write("x", to: name) }
    try folder.link("inner.md", to: "README.md")
    try folder.link("secret.txt", to: outside.path + "/secret.txt")
    try folder.link("folder", to: outside.path)
    try folder.link("dangling", to: "nothing")
    let large = try folder.write("x", to: "large.json")
    #expect(truncate(large, (64 << 20) + 1) == 0)
    #expect(mkfifo(folder.path + "/pipe", 0o600) == 0)
    let model = try openDenseCheckpoint(at: folder.path)
    #expect(
      model.companions == (carried + ["inner.md", "large.json"]).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
    let said = model.notices.joined(separator: "\n")
    for name in [
      "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx",
      "model.pt", "rust_model.ot", "m.gguf", "tf_model.H5", ".git", "secret.txt", "folder", "dangling", "pipe",
      "2_Dense/model.safetensors",
    ] {
      #expect(said.contains("'\(name)'"), "\(name) is not named")
    }
    #expect(!said.contains("README"))
  }

  @Test func `what is not a checkpoint is refused with a remedy`() throws {
    #expect(refusal(folder.path + "/none")?.contains("no such file or folder") == true)
    #expect(refusal()?.contains("is a folder without a model: no model.safetensors,") == true)
    #expect(refusal("/dev/null")?.contains("is a character device") == true)
    #expect(mkfifo(folder.path + "/pipe", 0o600) == 0)
    #expect(refusal(folder.path + "/pipe")?.contains("is a named pipe") == true)
    try folder.write("x", to: "pytorch_model.bin")
    #expect(refusal()?.contains("('pytorch_model.bin') only; convert it to safetensors first") == true)
    try folder.write(#"{"format": "mpo-checkpoint", "version": 1}"#, to: "manifest.json")
    #expect(refusal()?.contains("is an MPO checkpoint; use 'mpo inspect'") == true)
    try folder.write(#"{"format": "webapp"}"#, to: "manifest.json")
    #expect(refusal()?.contains("pickle") == true)
  }

  @Test(arguments: [
    ("a.safetensors", Array("".utf8), "the file is empty"),
    ("a.bin", [0x80, 0x02, 0x8A, 0x0A] + Array("torch".utf8), "is a pickle as torch.save writes it; convert it"),
    ("a.txt", Array("some text".utf8), "is neither a safetensors nor an HDF5 file"),
    ("a.json", Array("{\"a\": 1, \"b\": 2}".utf8), "is a JSON file; pass"),
    ("a.gguf", Array("GGUF....".utf8), "is a GGUF file"),
    ("a.npy", [0x93] + Array("NUMPY".utf8), "is a NumPy array"),
    ("a.safetensors", Array("version https://git-lfs.github.com/spec/v1\noid".utf8), "run 'git lfs pull'"),
    ("a.zip", Array("PK\u{3}\u{4}".utf8) + [UInt8](repeating: 0, count: 40), "is a zip archive but not a Keras model"),
    (
      "a.pt",
      Array("PK\u{3}\u{4}".utf8) + [UInt8](repeating: 0, count: 22) + [16, 0, 0, 0]
        + Array("archive/data.pkl".utf8), "is a pickle"
    ),
    ("a.safetensors", Array("garbage that is long enough".utf8), "more than the 100000000 of the format"),
  ])
  func `a file of another format is named`(name: String, bytes: [UInt8], expected: String) throws {
    let found = try #require(refusal(folder.write(bytes, to: name)))
    #expect(found.contains(expected), "\(found)")
  }

  @Test func `the content decides and not the ending`() throws {
    #expect(try openDenseCheckpoint(at: folder.write(file("a"), to: "a.bin")).tensors.map(\.name) == ["a"])
    let signature: [UInt8] = [0x89, 0x48, 0x44, 0x46, 0x0D, 0x0A, 0x1A, 0x0A]
    func reader(_ bytes: [UInt8], _ name: String) throws -> (any CheckpointReader.Type)? {
      let path = try folder.write(bytes, to: name)
      let file = try CheckpointFile(path: path, givenPath: path)
      return try checkpointReaders.first { try $0.recognizes(file) }
    }
    #expect(try reader(signature, "b.safetensors") == HDF5Reader.self)
    #expect(try reader([UInt8](repeating: 0x20, count: 1024) + signature, "c") == HDF5Reader.self)
    let keras =
      Array("PK\u{3}\u{4}".utf8) + [UInt8](repeating: 0, count: 22) + [13, 0, 0, 0] + Array("metadata.json".utf8)
    #expect(try reader(keras, "d") == KerasReader.self)
    #expect(try reader(Array("some text".utf8), "e") == nil)
  }
}
