import Checkpoints
import Conversion
import Foundation
import MPOCheckpoints
import Recipes

/// A reader of outside input, and where it finds the input.
enum FuzzTarget: String, CaseIterable {
  /// A safetensors file.
  case header
  /// The index of a sharded model.
  case index
  /// The index of sharded Keras weights.
  case kerasIndex
  /// The manifest of an MPO checkpoint, its digest made right.
  case manifest
  /// The shard of an MPO checkpoint, made as long as the manifest says: pivots, scales, permutations, packed entries.
  case packed
  /// A recipe.
  case recipe
  /// An HDF5 file or a Keras archive, in processes of the tool.
  case hdf5

  /// Whether an input belongs to one of the MPO checkpoints of the corpus.
  var readsCheckpoints: Bool { self == .manifest || self == .packed }

  /// The good inputs that the damaged ones are made of.
  ///
  /// - Parameters:
  ///   - corpus: the folder of the corpus, which has a folder for each target.
  ///   - checkpoints: the folders of the MPO checkpoints that manifests and shards belong to.
  ///   - fixtures: the folder of the fixtures, for HDF5.
  func seeds(corpus: String, checkpoints: [String], fixtures: String) throws -> [[UInt8]] {
    let own = corpus + "/" + rawValue
    var paths: [String] = []
    switch self {
    case .header, .index, .kerasIndex, .recipe: break
    case .manifest, .packed: paths = checkpoints.map { $0 + "/" + fileName }
    case .hdf5:
      paths = [
        "structure.h5", "layouts.h5", "latest.h5", "keras_legacy.h5", "references.h5", "keras3.keras", "sharded.keras",
      ].map {
        fixtures + "/hdf5/" + $0
      }
    }
    if FileManager.default.fileExists(atPath: own) { paths += try files(in: own) }
    return try paths.map { Array(try Data(contentsOf: URL(filePath: $0))) }
  }

  /// The paths of what is in a folder.
  private func files(in folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map { folder + "/" + $0 }
  }

  /// Makes the folder ready that inputs are written to.
  func prepare(_ folder: String, corpus: String) throws {
    if self == .kerasIndex {
      for shard in 0..<2 {
        let infos = [TensorInfo(name: "layers/d\(shard)/vars/0", dtype: .f32, shape: [64, 64])]
        let writer = try HDF5Writer(creating: folder + "/m_0000\(shard).weights.h5", tensors: infos)
        try [Float](repeating: 1, count: 4096).withUnsafeBytes { try writer.write($0, to: infos[0].name) }
        try writer.finish()
      }
    }
    guard self == .index else { return }
    for name in ["model-1.safetensors", "model-2.safetensors"] {
      try FileManager.default.copyItem(atPath: corpus + "/shards/" + name, toPath: folder + "/" + name)
    }
  }

  /// The file that an input is written to.
  var fileName: String {
    switch self {
    case .header: "m.safetensors"
    case .index: "m.safetensors.index.json"
    case .kerasIndex: "model.weights.json"
    case .manifest: "manifest.json"
    case .packed: "tensors.safetensors"
    case .recipe: "recipe.yaml"
    case .hdf5: "m.h5"
    }
  }

  /// Reads an input as far as it can be read.
  /// - Throws: what the reader throws, which must be an error of this package.
  func read(_ input: [UInt8], in folder: String, checkpoints: [DamagedCheckpoint], tool: String?) throws {
    let path = folder + "/" + fileName
    switch self {
    case .header, .index, .kerasIndex:
      try Data(input).write(to: URL(filePath: path))
      let checkpoint = try openDenseCheckpoint(at: path)
      for tensor in checkpoint.tensors { try checkpoint.withBytes(of: tensor) { _ = $0.last } }
    case .manifest: try DamagedCheckpoint.read(manifest: input, among: checkpoints)
    case .packed: try DamagedCheckpoint.read(shard: input, among: checkpoints)
    case .recipe: try readRecipe(String(decoding: input, as: UTF8.self))
    case .hdf5:
      try Data(input).write(to: URL(filePath: path))
      if let tool { try Self.runTool(tool, on: path, in: folder) }
    }
  }

  /// Reads a recipe; one that is valid must be the same when it is written and read again.
  private func readRecipe(_ yaml: String) throws {
    let recipe = try ConversionRecipe(yaml: yaml, path: fileName)
    let written = try recipe.yaml()
    guard try ConversionRecipe(yaml: written, path: fileName) == recipe else { throw FuzzFinding.recipe(written) }
  }

  /// Converts a file with the tool, which must succeed, or fail with one line beside warnings, no result and nothing left behind.
  private static func runTool(_ tool: String, on path: String, in folder: String) throws {
    let output = folder + "/out.mpo"
    let streams = [folder + "/results", folder + "/messages"].map { URL(filePath: $0) }
    for stream in streams { try Data().write(to: stream) }
    let process = Process()
    process.executableURL = URL(filePath: tool)
    process.arguments = ["convert", path, "-o", output, "--lossless", "--force", "--jobs", "1"]
    process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 }
    process.standardOutput = try FileHandle(forWritingTo: streams[0])
    process.standardError = try FileHandle(forWritingTo: streams[1])
    let before = try FileManager.default.contentsOfDirectory(atPath: folder)
    try process.run()
    process.waitUntilExit()
    let status = process.terminationStatus
    guard process.terminationReason == .exit, status == 0 || status == 1 else {
      throw FuzzFinding.toolEnded(status: status)
    }
    if status == 0 { return try FileManager.default.removeItem(atPath: output) }
    let results = try Data(contentsOf: streams[0])
    let text = String(decoding: try Data(contentsOf: streams[1]), as: UTF8.self)
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    guard results.isEmpty, lines.count >= 2, lines.last == "", lines[lines.count - 2].hasPrefix("mpo: "),
      lines.dropLast(2).allSatisfy({ $0.hasPrefix("mpo: warning: ") })
    else { throw FuzzFinding.badError(text) }
    let left = Set(try FileManager.default.contentsOfDirectory(atPath: folder)).subtracting(before)
    guard left.isEmpty else { throw FuzzFinding.left(left.sorted()) }
  }
}

/// What no input may lead to.
enum FuzzFinding: Error, CustomStringConvertible {
  case toolEnded(status: Int32)
  /// An error that is not one of this package's, or not one line.
  case badError(String)
  /// A run that failed left files.
  case left([String])
  /// A recipe that is another one when it is read again, as it was written.
  case recipe(String)

  var description: String {
    switch self {
    case .toolEnded(let status): "the tool ended with \(status)"
    case .badError(let text): "an error that says too little or too much: \(text.debugDescription)"
    case .left(let names): "the tool failed and left \(names.joined(separator: ", "))"
    case .recipe(let text): "this recipe was written and is read as another one: \(text.debugDescription)"
    }
  }
}
