import Checkpoints
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import Testing

@testable import Conversion
@testable import SqueezeLoop

/// A folder with a small network in it, for squeezes; removed when the test is over.
final class SqueezePlace {
  let path: String
  var model: String { path + "/model.safetensors" }
  var output: String { path + "/out.mpo" }

  init(named name: String = "squeeze") throws {
    // Every round waits for the disk several times; memory does not keep it waiting.
    let memory = FileManager.default.isWritableFile(atPath: "/dev/shm")
    path = (memory ? "/dev/shm" : NSTemporaryDirectory()) + "/mpo-\(name)-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    try writeModel(seed: 7)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Two layers and some more, F32; the matrices have falling spectra, as trained ones do.
  func writeModel(seed: UInt64) throws {
    var state = seed
    func random() -> Float {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Float(state >> 40) / Float(1 << 24) - 0.5
    }
    let tensors = [
      ("0.query", [64, 64]), ("0.key", [64, 64]), ("0.wide", [96, 64]), ("1.query", [64, 64]), ("1.key", [64, 64]),
      ("1.wide", [96, 64]), ("frozen", [64, 64]), ("bias", [96]),
    ].map { TensorInfo(name: $0.0, dtype: .f32, shape: $0.1) }
    let writer = try SafetensorsWriter(path: model, tensors: tensors, metadata: [:])
    for tensor in tensors {
      var elements = (0..<tensor.elementCount).map { _ in 0.3 * random() }
      if tensor.shape.count == 2 {
        let (rows, columns) = (tensor.shape[0], tensor.shape[1])
        for rank in 1...12 {
          let (u, v) = ((0..<rows).map { _ in random() }, (0..<columns).map { _ in random() })
          for row in 0..<rows {
            for column in 0..<columns { elements[row * columns + column] += u[row] * v[column] * 6 / Float(rank) }
          }
        }
      }
      try elements.withUnsafeBytes { try writer.write($0, to: tensor.name) }
    }
    try writer.finish()
  }

  /// The network with every matrix in cores at full rank; its path.
  func lossless(
    packs: Bool = false, part: SourceNetwork.Part? = nil, gauge: Gauge = .compact
  ) throws -> String {
    let result = path + "/x.mpo"
    try FileManager.default.createDirectory(atPath: result, withIntermediateDirectories: true)
    let checkpoint = try openDenseCheckpoint(at: model)
    let network = try SourceNetwork(checkpoint, selection: TensorSelection())
    var recipe = ConversionRecipe()
    (recipe.budget, recipe.pack, recipe.gauge) = (.lossless, packs, gauge)
    let plan = try SqueezePlan(network.profile(for: recipe, jobs: 2).profile, budget: .lossless, gauge: gauge)
    var converter = Converter(recipe: recipe, jobs: 2, generator: "mpo test")
    converter.part = part
    try converter.convert(checkpoint, plan: plan, to: result)
    return result
  }

  @discardableResult
  func write(_ text: String, to name: String) throws -> String {
    let file = path + "/" + name
    try FileManager.default.createDirectory(
      atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try Data(text.utf8).write(to: URL(fileURLWithPath: file))
    return file
  }

  var names: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }
  }

  /// Every file of a folder.
  func content(of folder: String) throws -> [String: Data] {
    var result: [String: Data] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
      result[name] = try Data(contentsOf: URL(fileURLWithPath: folder + "/" + name))
    }
    return result
  }

  /// The rounds in the journal.
  func rounds() throws -> [SqueezeJournal.Round] {
    try SqueezeJournal(path: output + ".squeeze.jsonl").rounds
  }

  /// Runs a squeeze whose evaluation fails while there is a file `fail`, and makes that file after two rounds.
  func endAfterTwoRounds(_ squeeze: SqueezeLoop) throws {
    #expect(throws: SqueezeLoopError.self) {
      try squeeze.run(model, to: output) { event in
        if case .round(let round) = event, round.round == 1 { _ = try? self.write("", to: "fail") }
      }
    }
    #expect(try rounds().count == 2)
  }

  static func run(_ command: String, _ arguments: [String]) -> Int32 {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [command] + arguments
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return -1 }
    process.waitUntilExit()
    return process.terminationStatus
  }

  static let hasPython = run("python3", ["--version"]) == 0

  /// Copies an MPO checkpoint with the first core of every matrix doubled and the second one halved.
  static let gaugeScript = """
    import array, hashlib, json, os, shutil, struct, sys
    source, target = sys.argv[1:]
    shutil.copytree(source, target)
    path = os.path.join(target, "tensors.safetensors")
    data = bytearray(open(path, "rb").read())
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    for name, entry in header.items():
        for ending, scale in ((".cores.0", 2.0), (".cores.1", 0.5)):
            if name.endswith(ending):
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                values = array.array("f", bytes(data[begin:end]))
                data[begin:end] = array.array("f", [scale * value for value in values]).tobytes()
    open(path, "wb").write(data)
    path = os.path.join(target, "manifest.json")
    text = open(path).read()
    manifest = json.loads(text)
    text = text.replace(manifest["shards"][0]["sha256"], hashlib.sha256(data).hexdigest())
    text = text.replace(manifest["manifest_sha256"], "0" * 64)
    text = text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest())
    open(path, "w").write(text)
    """
}
