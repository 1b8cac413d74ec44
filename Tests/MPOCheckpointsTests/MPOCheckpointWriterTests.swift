import Checkpoints
import Files
import Foundation
import TensorNetworks
import TestSupport
import Testing

@testable import MPOCheckpoints

@Suite struct MPOCheckpointWriterTests {
  @Test(arguments: [5_000_000_000, 256, 1], Gauge.allCases)
  func `everything that is written is read again`(maximumShardBytes: Int, gauge: Gauge) throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let sample = try SampleCheckpoint(in: folder, gauge: gauge, maximumShardBytes: maximumShardBytes)
    #expect(MPOCheckpoint.isPresent(at: folder))
    let checkpoint = try MPOCheckpoint(path: folder)
    #expect(checkpoint.contents == sample.contents)
    #expect(try checkpoint.damagedFiles() == [])
    let shardCount = checkpoint.manifest.shards.count
    #expect(maximumShardBytes == 5_000_000_000 ? shardCount == 1 : shardCount > 2)

    for record in sample.contents.tensors {
      #expect(checkpoint.record(named: record.name) == record)
      let holder = try checkpoint.holder(of: record)
      switch record.storage {
      case .dense: #expect(try checkpoint.withDenseBytes(of: record) { Array($0) } == sample.dense[record.name])
      case .tied(let other): #expect(holder.name == other)
      case .blocks:
        let chain = try #require(checkpoint.contents.ordinaryOperator(of: record))
        if record.dtype == .f64 {
          #expect(try checkpoint.chain(chain, as: Double.self) == sample.doubles[record.name])
        } else {
          #expect(try checkpoint.chain(chain, as: Float.self) == sample.floats[record.name])
        }
      }
    }
    #expect(checkpoint.record(named: "none") == nil)
  }

  @Test func `the shards are ordinary safetensors files with the names and shapes of the format`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder)
    let file = try SafetensorsFile(path: folder + "/tensors.safetensors")
    let found = Dictionary(uniqueKeysWithValues: file.tensors.map { ($0.name, "\($0.dtype.rawValue) \($0.shape)") })
    let expected = [
      "f32.weight.cores.0": "F32 [1, 2, 4, 5]", "f32.weight.cores.1": "F32 [5, 3, 2, 1]",
      "f32.bias": "F32 [5]",
      "padded.cores.0": "F32 [1, 2, 3, 4]", "padded.cores.1": "F32 [4, 1, 2, 3]", "padded.cores.2": "F32 [3, 3, 2, 1]",
      "f64.cores.0": "F64 [1, 4, 1, 2]", "f64.cores.1": "F64 [2, 1, 4, 1]",
      "f16.cores.0": "F16 [1, 2, 2, 3]", "f16.cores.1": "F16 [3, 3, 2, 1]",
      "bf16.cores.0": "BF16 [1, 3, 2, 4]", "bf16.cores.1": "BF16 [4, 2, 2, 1]",
      "mixed.cores.0": "F32 [1, 3, 2, 4]", "mixed.cores.1": "F32 [4, 2, 2, 1]",
      "kernel.cores.0": "BF16 [1, 2, 3, 6]", "kernel.cores.1": "BF16 [6, 2, 6, 1]",
      "ids": "I64 [1, 3]", "flags": "BOOL [3]", "scalar": "F16 []", "empty": "F32 [0, 4]", "\"ünïcode\\\n": "U8 [2]",
    ]
    #expect(found == expected)
  }

  @Test func `several shards have the names and the index of a sharded model`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder, maximumShardBytes: 400)
    let manifest = try MPOCheckpoint(path: folder).manifest
    let count = manifest.shards.count
    #expect(count > 1 && count < 10)
    #expect(manifest.shards.map(\.file) == (1...count).map { "tensors-0000\($0)-of-0000\(count).safetensors" })
    #expect(manifest.companions.map(\.file) == ["tensors.safetensors.index.json"] + SampleCheckpoint.companions)
    let sharded = try openDenseCheckpoint(at: folder + "/tensors.safetensors.index.json")
    #expect(sharded.tensors.count == 21)
  }

  @Test func `the manifest has the members of the format and no others`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let sample = try SampleCheckpoint(in: folder)
    let text = try ManifestText(in: folder)
    let object = text.object
    #expect(
      Set(object.keys) == [
        "format", "version", "generator", "manifest_sha256", "source", "shards", "companions", "conversion", "totals",
        "tensors", "operators", "cores",
      ])
    #expect(object["format"] as? String == "mpo-checkpoint")
    #expect(object["version"] as? String == "2.0")
    #expect(object["generator"] as? String == "tests 1.2.3")
    #expect((object["conversion"] as? [String: Any])?["budget"] as? [String: Double] == ["ratio": 0.5])

    let source = try #require(object["source"] as? [String: Any])
    #expect(Set(source.keys) == ["format", "files", "metadata"])
    #expect(source["format"] as? String == "safetensors")
    #expect(source["metadata"] as? [String: String] == ["format": "pt"])

    let shards = try #require(object["shards"] as? [[String: Any]])
    let companions = try #require(object["companions"] as? [[String: Any]])
    #expect(shards.compactMap { $0["name"] as? String } == ["tensors.safetensors"])
    #expect(companions.compactMap { $0["name"] as? String } == SampleCheckpoint.companions)
    for file in shards + companions {
      #expect(Set(file.keys) == ["name", "bytes", "sha256"])
      let name = try #require(file["name"] as? String)
      let found = try FileFingerprint(ofFileAt: folder + "/" + name)
      #expect(file["bytes"] as? Int == found.bytes && file["sha256"] as? String == found.sha256)
    }

    #expect(text.records.compactMap { $0["name"] as? String } == sample.contents.tensors.map(\.name))
    let common: Set<String> = ["name", "kind", "dtype", "shape"]
    for record in text.records {
      switch record["kind"] as? String {
      case "dense": #expect(Set(record.keys).subtracting(["orientation"]) == common)
      case "tied": #expect(Set(record.keys).subtracting(["orientation"]) == common.union(["tied_to"]))
      case "mpo":
        #expect(
          Set(record.keys)
            == common.union([
              "orientation", "matrix_shape", "blocks", "relative_error", "svd_relative_error", "norm",
            ]))
      default: Issue.record("\(record)")
      }
    }
    for record in text.operators {
      #expect(
        Set(record.keys) == [
          "name", "matrix_shape", "padded_shape", "row_factors", "column_factors", "bonds", "full_bonds", "central",
          "gauge", "cores", "entropies",
        ])
    }
    let cores = try #require(object["cores"] as? [[String: Any]])
    for core in cores { #expect(Set(core.keys) == ["name", "role", "shape", "encoding"]) }
    let padded = try text.record("padded")
    #expect(padded["dtype"] as? String == "F32" && padded["orientation"] as? String == "in_out")
    #expect(padded["shape"] as? [Int] == [5, 11] && padded["matrix_shape"] as? [Int] == [5, 11])
    #expect(padded["blocks"] as? [[[String: String]]] == [[["operator": "padded"]]])
    #expect(padded["relative_error"] as? Double == 0.25 && padded["svd_relative_error"] as? Double == 0.5)
    #expect(padded["norm"] as? Double == 2)
    let chain = try #require(text.operators.first { $0["name"] as? String == "padded" })
    #expect(chain["padded_shape"] as? [Int] == [6, 12])
    #expect(chain["row_factors"] as? [Int] == [2, 1, 3] && chain["column_factors"] as? [Int] == [3, 2, 2])
    #expect(chain["bonds"] as? [Int] == [4, 3] && chain["full_bonds"] as? [Int] == [6, 6])
    #expect(chain["central"] as? Int == 1 && chain["gauge"] as? String == "canonical")
    #expect(chain["cores"] as? [String] == ["padded.cores.0", "padded.cores.1", "padded.cores.2"])
    #expect(chain["entropies"] as? [Double] == [0.5, 0.375])
    let core = try #require(cores.first { $0["name"] as? String == "padded.cores.1" })
    #expect(core["role"] as? String == "central" && core["shape"] as? [Int] == [4, 1, 2, 3])
    #expect(core["encoding"] as? [String: String] == ["kind": "plain", "dtype": "F32"])
    let kernel = try text.record("kernel")
    #expect(kernel["shape"] as? [Int] == [4, 2, 3, 3] && kernel["matrix_shape"] as? [Int] == [4, 18])
    #expect(try text.record("tied ids")["tied_to"] as? String == "ids")
  }

  @Test func `the totals are sums over the tensors`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder)
    let totals = try #require(ManifestText(in: folder).object["totals"] as? [String: Any])
    #expect(
      Set(totals.keys) == [
        "parameters_before", "parameters_stored", "parameters_trainable", "bytes_before", "bytes_stored", "ratio",
        "relative_error",
      ])
    let entries = try SafetensorsFile(path: folder + "/tensors.safetensors").tensors
    // Matrices 48 + 55 + 16 + 3 · 24 + 72, tied 48 + 3, dense 5 + 3 + 3 + 1 + 2.
    let before = 48 + 55 + 16 + 72 + 72 + 51 + 14
    let stored = entries.reduce(0) { $0 + $1.elementCount }
    #expect(totals["parameters_before"] as? Int == before)
    #expect(totals["parameters_stored"] as? Int == stored)
    // Without integers, booleans (3 + 3 + 2 elements) and the central cores.
    let central = ["f32.weight.cores.0", "padded.cores.1", "f64.cores.0", "f16.cores.1", "bf16.cores.0"]
    let names = Set(central + ["mixed.cores.0", "kernel.cores.1"])
    let frozen = entries.filter { names.contains($0.name) }.reduce(0) { $0 + $1.elementCount }
    #expect(totals["parameters_trainable"] as? Int == stored - 8 - frozen)
    #expect(totals["bytes_before"] as? Int == 4 * (48 + 55 + 72 + 48 + 5) + 128 + 2 * 72 + 2 + 24 + 24 + 3 + 2)
    #expect(totals["bytes_stored"] as? Int == entries.reduce(0) { $0 + $1.byteCount })
    #expect(totals["ratio"] as? Double == Double(stored) / Double(before))
    #expect(abs(try #require(totals["relative_error"] as? Double) - 0.25) < 1e-12)
  }

  @Test func `the digest in the manifest is that of its text with zeros in its place`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    _ = try SampleCheckpoint(in: folder)
    let text = try String(contentsOfFile: folder + "/manifest.json", encoding: .utf8)
    let digest = try #require(ManifestText(in: folder).object["manifest_sha256"] as? String)
    #expect(digest.count == 64 && digest.allSatisfy { $0.isHexDigit && !$0.isUppercase })
    let blank = temporary.path + "/blank.json"
    try Data(text.replacingOccurrences(of: digest, with: String(repeating: "0", count: 64)).utf8)
      .write(to: URL(filePath: blank))
    #expect(try FileFingerprint(ofFileAt: blank).sha256 == digest)
  }

  @Test func `unmeasured errors are left out`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let contents = CheckpointContents.matrix(.f32, .lowRank(rows: 4, columns: 4), bonds: [1], core: .f32)
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents)
    _ = try writer.write(MPO<Float>.random(contents.operators[0], seed: 1), of: contents.operators[0])
    try writer.finish(generator: "tests", source: nil, conversion: nil)
    let text = try ManifestText(in: folder)
    #expect(
      Set(text.object.keys) == [
        "format", "version", "generator", "manifest_sha256", "shards", "companions", "totals", "tensors", "operators",
        "cores",
      ])
    #expect((text.object["totals"] as? [String: Any])?["relative_error"] == nil)
    #expect(Set(try text.record("w").keys) == ["name", "kind", "dtype", "shape", "matrix_shape", "blocks"])
    #expect(try MPOCheckpoint(path: folder).contents == contents)
  }

  @Test(arguments: [DType.f16, .bf16])
  func `cores are rounded to their dtype and given back as stored`(dtype: DType) throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let shape = try MPOShape(rowFactors: [2, 3], columnFactors: [4, 2])
    let contents = CheckpointContents.matrix(
      .f32, MatrixSplit(rows: 6, columns: 8, shape: shape), bonds: [6], core: dtype)
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents)
    let mpo = try MPO<Float>.random(contents.operators[0], seed: 2)
    let stored = try writer.write(mpo, of: contents.operators[0])
    #expect(stored != mpo.mpo)
    let precision: Float = dtype == .f16 ? 1 / 2048 : 1 / 256
    for (a, b) in zip(mpo.mpo.cores, stored.cores) {
      for (x, y) in zip(a.elements, b.elements) { #expect(abs(x - y) <= max(abs(x) * precision, 1e-7)) }
    }
  }

  @Test func `a value that does not fit the dtype is an error that names the core and the remedy`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let shape = MPOShape.lowRank(rows: 2, columns: 2)
    let contents = CheckpointContents.matrix(.f32, .lowRank(rows: 2, columns: 2), bonds: [1], core: .f16)
    let writer = try MPOCheckpointWriter(folder: folder, contents: contents)
    let mpo = MPO<Float>(
      shape: shape,
      cores: [MPOCore(shape: [1, 2, 1, 1], elements: [1, 2]), MPOCore(shape: [1, 1, 2, 1], elements: [1, 70000])])
    let gauged = GaugedMPO(gauge: .canonical, mpo: mpo)
    let error = #expect(throws: MPOCheckpointError.self) { try writer.write(gauged, of: contents.operators[0]) }
    for part in ["'w.cores.1'", "F16", "--dtype f32", "--exclude"] { #expect("\(try #require(error))".contains(part)) }
  }

  @Test func `a checkpoint with a tensor left out is not finished`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    let record = TensorRecord(dense: TensorInfo(name: "w", dtype: .f32, shape: [2]))
    let writer = try MPOCheckpointWriter(folder: folder, contents: CheckpointContents(tensors: [record]))
    #expect(throws: CheckpointError.self) { try writer.finish(generator: "tests", source: nil, conversion: nil) }
    #expect(!FileManager.default.fileExists(atPath: folder + "/manifest.json"))
  }

  @Test func `two tensors that need the same entry are refused`() throws {
    let temporary = try TemporaryFolder()
    let folder = try temporary.folder("a.mpo")
    var contents = CheckpointContents.matrix(.f32, .lowRank(rows: 4, columns: 4), bonds: [1], core: .f32)
    contents.append(TensorRecord(dense: TensorInfo(name: "w.cores.0", dtype: .f32, shape: [4])))
    let error = #expect(throws: MPOCheckpointError.self) { try MPOCheckpointWriter(folder: folder, contents: contents) }
    #expect("\(try #require(error))".contains("w.cores.0"))
  }
}
