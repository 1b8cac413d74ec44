import Checkpoints
import Conversion
import Foundation
import MPOCheckpoints

/// A reader of outside input, and where it finds the input.
enum FuzzTarget: String, CaseIterable {
  /// A safetensors file.
  case header
  /// The index of a sharded model.
  case index
  /// The manifest of an MPO checkpoint, its digest made right.
  case manifest
  /// The shard of a packed MPO checkpoint, made as long as the manifest says.
  case packed
  /// An HDF5 file, in processes of the tool.
  case hdf5

  /// The good inputs that the damaged ones are made of.
  ///
  /// - Parameters:
  ///   - corpus: the folder of the corpus, which has a folder for each target, and the MPO checkpoint that manifests and
  ///     packed shards belong to.
  ///   - fixtures: the folder of the fixtures, for HDF5.
  func seeds(corpus: String, fixtures: String) throws -> [[UInt8]] {
    var paths: [String] = []
    switch self {
    case .header, .index: break
    case .manifest, .packed: paths = [corpus + "/checkpoint.mpo/" + fileName]
    case .hdf5:
      paths = ["structure.h5", "layouts.h5", "latest.h5", "keras_legacy.h5", "references.h5"].map {
        fixtures + "/hdf5/" + $0
      }
    }
    if self != .hdf5 { paths += try files(in: corpus + "/" + rawValue) }
    return try paths.map { Array(try Data(contentsOf: URL(filePath: $0))) }
  }

  private func files(in folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map { folder + "/" + $0 }
  }

  /// Makes the folder ready that inputs are written to.
  func prepare(_ folder: String, corpus: String) throws {
    switch self {
    case .index:
      for name in ["model-1.safetensors", "model-2.safetensors"] {
        try FileManager.default.copyItem(atPath: corpus + "/shards/" + name, toPath: folder + "/" + name)
      }
    case .manifest, .packed:
      for name in try FileManager.default.contentsOfDirectory(atPath: corpus + "/checkpoint.mpo") {
        try FileManager.default.copyItem(atPath: corpus + "/checkpoint.mpo/" + name, toPath: folder + "/" + name)
      }
    case .header, .hdf5: break
    }
  }

  /// The file that an input is written to.
  var fileName: String {
    switch self {
    case .header: "m.safetensors"
    case .index: "m.safetensors.index.json"
    case .manifest: "manifest.json"
    case .packed: "tensors.safetensors"
    case .hdf5: "m.h5"
    }
  }

  /// Reads an input as far as it can be read.
  /// - Throws: what the reader throws, which must be an error of this package.
  func read(_ input: [UInt8], in folder: String, tool: String?) throws {
    let path = folder + "/" + fileName
    var input = input
    if self == .manifest { input = Self.withDigest(input) }
    if self == .packed { input = try Self.ofLength(ofFileAt: path, input) }
    try Data(input).write(to: URL(filePath: path))
    switch self {
    case .header, .index:
      let checkpoint = try openDenseCheckpoint(at: path)
      for tensor in checkpoint.tensors { try checkpoint.withBytes(of: tensor) { _ = $0.last } }
    case .manifest, .packed: try readCheckpoint(folder)
    case .hdf5: if let tool { try Self.runTool(tool, on: path, output: folder + "/out.mpo") }
    }
  }

  private func readCheckpoint(_ folder: String) throws {
    let checkpoint = try MPOCheckpoint(path: folder)
    _ = try Verifier(jobs: 1).verify(checkpoint)
    let small = checkpoint.contents.operators.allSatisfy { record in
      record.shape.rows.multipliedReportingOverflow(by: record.shape.columns).partialValue <= 1 << 20
    }
    guard small else { return }
    for record in checkpoint.contents.tensors where checkpoint.contents.ordinaryOperator(of: record) != nil {
      _ = try storedSpectra(of: record, in: checkpoint)
    }
    try Restorer(jobs: 1).restoreFile(checkpoint, to: folder + "/out.safetensors")
  }

  /// A manifest with the digest it should have, so that damage is not found by that alone.
  private static func withDigest(_ input: [UInt8]) -> [UInt8] {
    let key = Array("\"manifest_sha256\" : \"".utf8)
    guard let place = input.firstRange(of: key), place.upperBound + 64 <= input.count else { return input }
    let digits = place.upperBound..<place.upperBound + 64
    var result = input
    result.replaceSubrange(digits, with: Array(repeating: UInt8(ascii: "0"), count: 64))
    result.replaceSubrange(digits, with: Array(sha256(result).utf8))
    return result
  }

  /// An input cut, or filled up with zeros: one of another length is refused before anything is read.
  private static func ofLength(ofFileAt path: String, _ input: [UInt8]) throws -> [UInt8] {
    let length = try FileHandle(forReadingFrom: URL(filePath: path)).seekToEnd()
    return input.prefix(Int(length)) + Array(repeating: 0, count: max(0, Int(length) - input.count))
  }

  private static func runTool(_ tool: String, on path: String, output: String) throws {
    let process = Process()
    process.executableURL = URL(filePath: tool)
    process.arguments = ["convert", path, "-o", output, "--lossless", "--force", "--jobs", "1"]
    process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 }
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    if process.terminationReason == .uncaughtSignal || ![0, 1].contains(process.terminationStatus) {
      throw FuzzFinding.toolEnded(status: process.terminationStatus)
    }
  }
}

/// What no input may lead to.
enum FuzzFinding: Error, CustomStringConvertible {
  case toolEnded(status: Int32)
  /// An error that is not one of this package's, or not one line.
  case badError(String)

  var description: String {
    switch self {
    case .toolEnded(let status): "the tool ended with \(status)"
    case .badError(let text): "an error that says too little or too much: \(text.debugDescription)"
    }
  }
}
