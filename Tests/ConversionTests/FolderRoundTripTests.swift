import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import TestSupport
import Testing

@testable import Conversion

/// Whole folders: what is converted, verified and restored is there again, under its name.
@Suite struct FolderRoundTripTests {
  let folder: TemporaryFolder
  private let source: String

  init() throws {
    folder = try TemporaryFolder()
    source = folder.path + "/source"
    try FileManager.default.createDirectory(atPath: source, withIntermediateDirectories: true)
  }

  private func write(_ names: String..., to file: String, seed: Double = 1) throws {
    let path = source + "/" + file
    try FileManager.default.createDirectory(
      atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    let infos = names.map { TensorInfo(name: $0, dtype: .f32, shape: [64, 64]) }
    let writer: any DenseCheckpointWriter =
      file.hasSuffix(".h5")
      ? try HDF5Writer(creating: path, tensors: infos) : try SafetensorsWriter(path: path, tensors: infos)
    for (number, info) in infos.enumerated() {
      let values = (0..<4096).map { Float(sin(Double($0 * ($0 + number)) * seed)) }
      try values.withUnsafeBytes { try writer.write($0, to: info.name) }
    }
    try writer.finish()
  }

  private func text(_ text: String, to file: String) throws { try folder.write(text, to: "source/" + file) }

  /// Converts without loss and restores; the files of both folders, with their bytes.
  private func roundTrip() throws -> (before: [String: Data], after: [String: Data]) {
    let output = folder.path + "/out.mpo"
    let restored = folder.path + "/restored"
    for path in [output, restored] {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    let model = try openDenseCheckpoint(at: source)
    var recipe = ConversionRecipe()
    recipe.budget = .lossless
    _ = try convert(model, recipe: recipe, to: output, options: ConversionOptions(jobs: 1, generator: "test"))
    let checkpoint = try MPOCheckpoint(path: output)
    #expect(!checkpoint.contents.tensors.contains { $0.isDense })
    #expect(try Verifier(jobs: 1).verify(checkpoint, against: model).problems == [])
    try Restorer(jobs: 1).restoreFolder(checkpoint, to: restored)
    return (try files(in: source), try files(in: restored))
  }

  private func files(in path: String) throws -> [String: Data] {
    var found: [String: Data] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: path) {
      var isFolder: ObjCBool = false
      _ = FileManager.default.fileExists(atPath: path + "/" + name, isDirectory: &isFolder)
      if !isFolder.boolValue { found[name] = try Data(contentsOf: URL(filePath: path + "/" + name)) }
    }
    return found
  }

  @Test(arguments: ["adapter_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "model.safetensors"])
  func `weights keep their name`(name: String) throws {
    try write("a", "b", to: name)
    try text("{}", to: "config.json")
    let (before, after) = try roundTrip()
    #expect(before == after)
  }

  @Test func `a Keras archive of shards comes back as one`() throws {
    let archive = fixtures + "/hdf5/sharded.keras"
    let (output, result) = (try folder.folder("out.mpo"), folder.path + "/r.keras")
    let model = try openDenseCheckpoint(at: archive)
    var recipe = ConversionRecipe()
    recipe.budget = .lossless
    _ = try convert(model, recipe: recipe, to: output, options: ConversionOptions(jobs: 1, generator: "test"))
    let checkpoint = try MPOCheckpoint(path: output)
    #expect(checkpoint.contents.tensor(named: "layers/dense_1/vars/0")?.isDense == false)
    #expect(try Verifier(jobs: 1).verify(checkpoint, against: model).problems == [])
    try Restorer(jobs: 1).restoreFile(checkpoint, to: result, as: .keras)
    let restored = try openDenseCheckpoint(at: result)
    #expect(restored.tensors == model.tensors)
    for tensor in model.tensors where checkpoint.contents.tensor(named: tensor.name)?.isDense == true {
      #expect(try restored.bytes(of: tensor.name) == model.bytes(of: tensor.name))
    }
    try Restorer(jobs: 1).restoreFile(checkpoint, to: folder.path + "/r.h5", as: .hdf5)
    #expect(
      try openDenseCheckpoint(at: folder.path + "/r.h5").tensors.map(\.name).sorted()
        == model.tensors.map(\.name).sorted())
  }

  @Test func `kernels of attention come back from Keras weights without loss`() throws {
    let shapes = [
      "m/query_dense/vars/0": [64, 4, 16], "m/output_dense/vars/0": [4, 16, 64], "m/conv/vars/0": [3, 64, 64],
    ]
    let path = folder.path + "/a.weights.h5"
    let infos = shapes.sorted { $0.key < $1.key }.map { TensorInfo(name: $0.key, dtype: .f32, shape: $0.value) }
    let writer = try HDF5Writer(creating: path, tensors: infos)
    for (number, info) in infos.enumerated() {
      try (0..<info.elementCount).map { Float(sin(Double($0 * ($0 + number)))) }
        .withUnsafeBytes { try writer.write($0, to: info.name) }
    }
    try writer.finish()
    let model = try openDenseCheckpoint(at: path)
    var recipe = ConversionRecipe()
    recipe.budget = .lossless
    let output = try folder.folder("a.mpo")
    _ = try convert(model, recipe: recipe, to: output, options: ConversionOptions(jobs: 1, generator: "test"))
    let checkpoint = try MPOCheckpoint(path: output)
    #expect(
      checkpoint.contents.tensors.map { $0.blocks.map { [$0.rows, $0.columns] } } == [nil, [64, 64], [64, 64]])
    try Restorer(jobs: 1).restoreFile(checkpoint, to: folder.path + "/r.h5", as: .hdf5)
    let restored = try openDenseCheckpoint(at: folder.path + "/r.h5")
    for info in infos { #expect(try restored.bytes(of: info.name) == model.bytes(of: info.name)) }
  }

  @Test func `shards stay as they were`() throws {
    try write("b", to: "x/model.fp16-00001-of-00002.safetensors")
    try write("a", to: "model.fp16-00002-of-00002.safetensors", seed: 2)
    try text(
      #"{"weight_map":{"a":"model.fp16-00002-of-00002.safetensors","b":"x/model.fp16-00001-of-00002.safetensors"}}"#,
      to: "model.safetensors.index.fp16.json")
    let (before, after) = try roundTrip()
    #expect(before == after)
  }

  @Test func `every component of a pipeline is converted and comes back`() throws {
    try write("w", to: "unet/diffusion_pytorch_model.safetensors")
    try write("w", to: "vae/model.safetensors", seed: 2)
    try text("{}", to: "model_index.json")
    try text("pickled", to: "safety/pytorch_model.bin")
    let (before, after) = try roundTrip()
    #expect(before == after)
  }

  @Test(arguments: ["tf_model.h5", "weights.h5"])
  func `an HDF5 file comes back as one`(name: String) throws {
    try write("layer/kernel", to: name)
    let (before, after) = try roundTrip()
    #expect(before.keys == after.keys)
    let found = try openDenseCheckpoint(at: folder.path + "/restored/" + name)
    #expect(
      try found.bytes(of: "layer/kernel") == openDenseCheckpoint(at: source + "/" + name).bytes(of: "layer/kernel"))
  }

  @Test func `sharded Keras weights come back as they were`() throws {
    try write("layers/a/vars/0", to: "m_00000.weights.h5")
    try write("layers/b/vars/0", to: "m_00001.weights.h5", seed: 2)
    try text(
      #"{"weight_map":{"/layers/a/vars":"m_00000.weights.h5","/layers/b/vars":"m_00001.weights.h5"}}"#,
      to: "model.weights.json")
    let (before, after) = try roundTrip()
    #expect(before.keys.sorted() == after.keys.sorted())
    #expect(before["model.weights.json"] == after["model.weights.json"])
    let found = try openDenseCheckpoint(at: folder.path + "/restored")
    #expect(try found.bytes(of: "layers/b/vars/0") == openDenseCheckpoint(at: source).bytes(of: "layers/b/vars/0"))
  }

  @Test func `companions with the names of our own files come back under their own`() throws {
    try write("w", to: "model.safetensors")
    for name in [
      "manifest.json", "companions/manifest.json", "tensors.safetensors.index.json", "tensors.safetensors",
      "skeleton.h5",
      "tensors-00001.txt", "skeleton-1.keras", ".hidden", "sub/manifest.json",
    ] { try text(name, to: name) }
    let (before, after) = try roundTrip()
    #expect(before == after)
  }

  @Test func `components that contradict the tensors are refused`() throws {
    try write("w", to: "unet/model.safetensors")
    try write("w", to: "vae/model.safetensors", seed: 2)
    try text("{}", to: "model_index.json")
    _ = try roundTrip()
    let path = folder.path + "/out.mpo/manifest.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    for (old, new) in [
      (#""file" : "unet\/model.safetensors""#, #""file" : "..\/model.safetensors""#),
      (#""tensor_count" : 1"#, #""tensor_count" : 2"#), (#""prefix" : "unet\/""#, #""prefix" : "x\/""#),
    ] {
      let compact = { (text: String) in text.replacingOccurrences(of: " : ", with: ":") }
      let escaped = { (text: String) in text.replacingOccurrences(of: "\\/", with: "/") }
      let variants = [
        (old, new), (compact(old), compact(new)), (escaped(old), escaped(new)),
        (escaped(compact(old)), escaped(compact(new))),
      ]
      let variant = try #require(variants.first { text.contains($0.0) }, "\(old) is not in the manifest")
      try text.replacingOccurrences(of: variant.0, with: variant.1).write(
        toFile: path, atomically: false, encoding: .utf8)
      #expect(throws: MPOCheckpointError.self) { try MPOCheckpoint(path: folder.path + "/out.mpo") }
    }
  }

  @Test(arguments: [
    ([128, 64, 3], TensorInfo.Orientation.outputInput, [128, 192]), ([64, 64, 3, 3], .outputInput, [64, 576]),
    ([64, 8, 2, 2, 2], .outputInput, [64, 64]), ([5, 64, 128], .inputOutput, [320, 128]),
    ([3, 3, 3, 8, 64], .inputOutput, [216, 64]), ([9, 9, 128, 1], .inputOutput, [81, 128]),
    ([256, 1, 31], .outputInput, [256, 31]),
    ([1, 64, 64], .outputInput, [64, 64]),
  ])
  func `a kernel of any rank is a matrix`(shape: [Int], orientation: TensorInfo.Orientation, sides: [Int]) {
    let tensor = TensorInfo(name: "w", dtype: .f32, shape: shape, orientation: orientation)
    let found = WeightMatrix.sides(of: tensor, convolutions: true)
    #expect(found.map { [$0.rows, $0.columns] } == sides)
    #expect(WeightMatrix.sides(of: tensor) == nil)
  }

  @Test(arguments: [
    (DType.f16, 65000.0), (.f16, 1e-6), (.f64, 1e306), (.bf16, 3e38), (.f32, 3e38),
  ])
  func `a matrix that can't come back stays dense, with a warning`(dtype: DType, scale: Double) throws {
    let values = (0..<4096).map { sin(Double($0 * $0)) * scale }
    let path = source + "/m.safetensors"
    let tensors = [
      TensorInfo(name: "w", dtype: dtype, shape: [64, 64]), TensorInfo(name: "v", dtype: dtype, shape: [64, 64]),
    ]
    let writer = try SafetensorsWriter(path: path, tensors: tensors)
    for (tensor, values) in zip(tensors, [values, values.map { $0 == 0 ? 0 : $0 / scale }]) {
      var bytes = [UInt8](repeating: 0, count: tensor.byteCount)
      try values.withUnsafeBufferPointer { values in
        try bytes.withUnsafeMutableBytes { try TensorElements.encode(values, as: dtype, into: $0) }
      }
      try bytes.withUnsafeBytes { try writer.write($0, to: tensor.name) }
    }
    try writer.finish()
    let output = folder.path + "/out.mpo"
    try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
    var recipe = ConversionRecipe()
    recipe.budget = .maximumError(0.3)
    let model = try openDenseCheckpoint(at: path)
    let manifest = try convert(
      model, recipe: recipe, to: output, options: ConversionOptions(jobs: 1, generator: "test"))
    #expect(manifest.contents.tensors.map(\.isDense) == [true, false])
    try Restorer(jobs: 1).restoreFile(MPOCheckpoint(path: output), to: folder.path + "/r.safetensors")
    let restored = try openDenseCheckpoint(at: folder.path + "/r.safetensors")
    #expect(try restored.bytes(of: "w") == model.bytes(of: "w"))
  }
}
