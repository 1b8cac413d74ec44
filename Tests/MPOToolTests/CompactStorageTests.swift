import Checkpoints
import Foundation
import MPOCheckpoints
import TestSupport
import Testing

@Suite struct CompactStorageTests {
  private let temporary: TemporaryFolder
  private var output: String { temporary.path + "/out.mpo" }

  init() throws { temporary = try TemporaryFolder() }

  /// Two matrices of noise, with vectors and ids beside them.
  private func model() throws -> String {
    try temporary.writeModel(["a": (256, 320), "b": (192, 256)], to: "m.safetensors")
  }

  private func totals(_ path: String) throws -> [String: Any] {
    try #require(try Tool.run("inspect", path, "--json").json["totals"] as? [String: Any])
  }

  @Test(arguments: [
    ["--pack"], ["--central", "int8"], ["--central", "int8", "--pack"], ["--dtype", "bf16", "--pack"],
    ["--dtype", "f16", "--central", "int8", "--pack"],
  ])
  func `compact checkpoints are inspected, verified and restored like others`(options: [String]) throws {
    let model = try model()
    let plain = temporary.path + "/plain.mpo"
    #expect(try Tool.run("convert", model, "-o", plain, "--ratio", "0.6").status == 0)
    let converted = try Tool.Run(["convert", model, "-o", output, "--ratio", "0.6"] + options).finish()
    #expect(converted.status == 0 && converted.messages.isEmpty, "\(converted.messages)")
    #expect(converted.output.contains("packed from") == options.contains("--pack"))
    #expect(try temporary.names == ["m.safetensors", "out.mpo", "plain.mpo"])
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: output).sorted()
        == ["README.md", "manifest.json", "tensors.safetensors"])

    let (before, after) = (try totals(plain), try totals(output))
    #expect(after["ratio"] as? Double == before["ratio"] as? Double)
    #expect(after["parameters_stored"] as? Int == before["parameters_stored"] as? Int)
    #expect(after["parameters_trainable"] as? Int == before["parameters_trainable"] as? Int)
    let bytes = try #require(after["bytes_stored"] as? Int)
    #expect(bytes < (before["bytes_stored"] as? Int ?? 0))
    #expect((after["bytes_unpacked"] as? Int ?? bytes) >= bytes)

    let verified = try Tool.run("verify", output, "--against", model)
    #expect(verified.status == 0 && verified.messages.isEmpty, "\(verified.output)")
    let tensor = try Tool.run("inspect", output, "--tensor", "a")
    #expect(tensor.output.contains("packed from") == options.contains("--pack"))
    #expect(tensor.output.contains("scales") == options.contains("--central"))
    #expect(try Tool.run("inspect", output).output.contains("/I8") == options.contains("--central"))
    if options == ["--pack"] {
      // Nothing is lost.
      for path in [plain, output] {
        #expect(try Tool.run("restore", path, "-o", path + ".safetensors").status == 0)
      }
      #expect(
        FileManager.default.contentsEqual(atPath: plain + ".safetensors", andPath: output + ".safetensors"))
    }
  }

  @Test func `the error of rounding is in the recorded error`() throws {
    let model = try model()
    var errors: [Double] = []
    for options in [[], ["--dtype", "bf16"], ["--central", "int8"], ["--central", "int8", "--pack"]] {
      let path = temporary.path + "/\(errors.count).mpo"
      #expect(try Tool.Run(["convert", model, "-o", path, "--lossless"] + options).finish().status == 0)
      errors.append(try #require(try totals(path)["relative_error"] as? Double))
    }
    #expect(errors[0] < 1e-5)
    #expect(errors[1] > 5e-4 && errors[1] < 1e-2)
    #expect(errors[2] > 1e-3 && errors[2] < 2e-2)
    #expect(errors[3] == errors[2])
    let ranked = try temporary.writeModel(["a": (64, 64), "b": (96, 64)], isRankOne: true, to: "r.safetensors")
    expectFailure(
      try Tool.run(
        "convert", ranked, "-o", output, "--max-error", "0.0001", "--shape", "a=64,1x1,64", "--shape", "b=96,1x1,64",
        "--central", "int8"), "'a'", "'b'", "above 0.0001", "--central", status: 3)
  }

  @Test func `packed output does not depend on the number of jobs`() throws {
    let model = try model()
    let other = temporary.path + "/other.mpo"
    for (path, jobs) in [(output, "1"), (other, "3")] {
      let options = ["--ratio", "0.6", "--pack", "--central", "int8", "--jobs", jobs]
      #expect(try Tool.Run(["convert", model, "-o", path] + options).finish().status == 0)
    }
    for name in ["tensors.safetensors", "manifest.json"] {
      #expect(FileManager.default.contentsEqual(atPath: output + "/" + name, andPath: other + "/" + name))
    }
  }

  @Test func `a flipped bit in a packed entry is found by verify and stops restore`() throws {
    let model = try model()
    #expect(try Tool.run("convert", model, "-o", output, "--ratio", "0.6", "--pack").status == 0)
    let path = output + "/tensors.safetensors"
    let file = try SafetensorsFile(path: path)
    let packed = try #require(file.tensors.filter { $0.dtype == .u8 }.max { $0.byteCount < $1.byteCount })
    var content = try Data(contentsOf: URL(filePath: path))
    content[content.count - packed.byteCount / 2] ^= 4
    try content.write(to: URL(filePath: path))
    let verified = try Tool.run("verify", output)
    #expect(verified.status == 3 && verified.output.contains("tensors.safetensors"))
    expectFailure(try Tool.run("restore", output, "-o", temporary.path + "/r.safetensors"), output, "damaged")
    #expect(try temporary.names == ["m.safetensors", "out.mpo"])
  }

  @Test(arguments: [true, false])
  func `a squeezed checkpoint is packed where its source is or that is asked for`(fromCompact: Bool) throws {
    let model = try model()
    if fromCompact {
      #expect(
        try Tool.run("convert", model, "-o", output, "--lossless", "--central", "int8", "--pack").status == 0)
    }
    let squeezed = temporary.path + "/squeezed.mpo"
    let run = [
      "squeeze", fromCompact ? output : model, "-o", squeezed, "--evaluate", "echo 1", "--max-drop", "0",
      "--max-steps", "2", "--step", "10%",
    ]
    let result = try Tool.Run(run + (fromCompact ? [] : ["--pack"])).finish()
    #expect(result.status == 0, "\(result.messages)")
    #expect(try Tool.run("verify", squeezed).status == 0)
    let manifest = try MPOCheckpoint(path: squeezed).manifest
    let central = manifest.contents.cores.filter { $0.role == .central }
    #expect(!central.isEmpty && central.allSatisfy { ($0.encoding.valueDType == .i8) == fromCompact })
    #expect(manifest.contents.isPacked)
    #expect(manifest.totals.ratio < 1)
  }

  @Test func `--central takes int8 only`() throws {
    let result = try Tool.run("convert", "m", "-o", "o", "--ratio", "0.5", "--central", "int4")
    #expect(result.status == 64 && result.messages.contains("int8"))
  }
}
