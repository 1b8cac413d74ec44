import Conversion
import Foundation
import MPOCheckpoints

/// A copy of an MPO checkpoint, one of whose files is damaged.
struct DamagedCheckpoint {
  private let folder: String
  private let manifest: [UInt8]
  private let shard: [UInt8]
  /// Of the shard, as the manifest has it.
  private let digest: [UInt8]

  /// Copies the checkpoint at `original` to `folder`.
  init(copying original: String, to folder: String) throws {
    try FileManager.default.copyItem(atPath: original, toPath: folder)
    self.folder = folder
    manifest = Array(try Data(contentsOf: URL(filePath: folder + "/manifest.json")))
    shard = Array(try Data(contentsOf: URL(filePath: folder + "/tensors.safetensors")))
    digest = Array(sha256(shard).utf8)
  }

  /// Reads a manifest in the place of that of the checkpoint whose shard it names, or of the first.
  static func read(manifest: [UInt8], among checkpoints: [DamagedCheckpoint]) throws {
    let owner = checkpoints.first { manifest.firstRange(of: $0.digest) != nil } ?? checkpoints[0]
    try owner.read(withDigest(manifest), as: "manifest.json", restoring: owner.manifest)
  }

  /// Reads a shard in the place of that of the checkpoint whose shard is most like it in length: cut, or filled up with
  /// zeros, since one of another length is refused before anything is read.
  static func read(shard: [UInt8], among checkpoints: [DamagedCheckpoint]) throws {
    func difference(_ checkpoint: DamagedCheckpoint) -> Int { abs(checkpoint.shard.count - shard.count) }
    let owner = checkpoints.min { difference($0) < difference($1) } ?? checkpoints[0]
    let length = owner.shard.count
    let input = shard.prefix(length) + Array(repeating: 0, count: max(0, length - shard.count))
    try owner.read(Array(input), as: "tensors.safetensors", restoring: owner.shard)
  }

  private func read(_ input: [UInt8], as name: String, restoring whole: [UInt8]) throws {
    let file = URL(filePath: folder + "/" + name)
    try Data(input).write(to: file)
    defer { try? Data(whole).write(to: file) }
    try read()
  }

  /// Opens it, verifies it, measures spectra, restores it.
  private func read() throws {
    let checkpoint = try MPOCheckpoint(path: folder)
    _ = try Verifier(jobs: 1).verify(checkpoint)
    // The verifier leaves that out where checksums differ.
    _ = try checkpoint.damagedEntries()
    let small = checkpoint.contents.operators.allSatisfy { record in
      let (size, overflows) = record.shape.rows.multipliedReportingOverflow(by: record.shape.columns)
      return !overflows && size <= 1 << 20
    }
    guard small else { return }
    // What is wrong with one tensor must not keep the others from being read.
    var first: (any Error)?
    func attempt(_ body: () throws -> Void) {
      do { try body() } catch { first = first ?? error }
    }
    for record in checkpoint.contents.tensors {
      attempt {
        guard checkpoint.contents.ordinaryOperator(of: record) != nil else { return }
        _ = try storedSpectra(of: record, in: checkpoint)
      }
    }
    attempt { try Restorer(jobs: 1).restoreFile(checkpoint, to: folder + ".safetensors") }
    if let first { throw first }
  }

  /// A manifest with the digest it should have, so that damage is not found by that alone.
  private static func withDigest(_ input: [UInt8]) -> [UInt8] {
    let key = Array("\"manifest_sha256\"".utf8)
    guard let place = input.firstRange(of: key)?.upperBound,
      let start = input[place...].firstIndex(of: UInt8(ascii: "\"")), start + 65 <= input.count
    else { return input }
    let digits = start + 1..<start + 65
    var result = input
    result.replaceSubrange(digits, with: Array(repeating: UInt8(ascii: "0"), count: 64))
    result.replaceSubrange(digits, with: Array(sha256(result).utf8))
    return result
  }
}
