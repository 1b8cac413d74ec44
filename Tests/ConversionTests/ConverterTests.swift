import Checkpoints
import Files
import Foundation
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks
import TestSupport
import Testing

@testable import Conversion

@Suite struct ConverterTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  private func model(_ tensors: [ModelTensor]) throws -> any DenseCheckpoint {
    try writeModel(tensors, to: temporary.path + "/model.safetensors")
  }

  private func restored(_ checkpoint: MPOCheckpoint) throws -> any DenseCheckpoint {
    let path = temporary.path + "/restored-\(UUID().uuidString).safetensors"
    try Restorer(jobs: 2).restoreFile(checkpoint, to: path)
    return try openDenseCheckpoint(at: path)
  }

  // MARK: - Lossless

  @Test func `lossless conversion restores single and double precision to rounding`() throws {
    let source = try model([
      .random("double", [80, 96], .f64, seed: 1), .random("flat", [96, 64], decay: 1, seed: 2),
      .random("steep", [64, 100], decay: 0.8, seed: 3), .random("prime", [67, 71], seed: 4),
      .random("bias", [33], seed: 5), ModelTensor("zero", .f32, [64, 64], Array(repeating: 0, count: 4096)),
      ModelTensor("ones", .f32, [64, 64], Array(repeating: 1, count: 4096)),
    ])
    let checkpoint = try converted(source, .lossless, to: temporary.folder("a.mpo"))
    let result = try restored(checkpoint)
    for tensor in source.tensors {
      let (before, after) = (try source.values(of: tensor.name), try result.values(of: tensor.name))
      if tensor.name == "bias" || tensor.name == "zero" {
        #expect(try source.bytes(of: tensor.name) == result.bytes(of: tensor.name))
      } else {
        #expect(relativeDifference(after, before) <= (tensor.dtype == .f64 ? 1e-6 : 2e-6))
        // A padded matrix is smaller as it is.
        guard let matrix = checkpoint.record(named: tensor.name)?.blocks else { continue }
        #expect(try #require(matrix.relativeError) <= 2e-6)
      }
    }
    #expect(checkpoint.contents.operator(named: "ones")?.bonds.allSatisfy { $0 == 1 } == true)
    #expect(checkpoint.contents.operator(named: "zero")?.bonds.allSatisfy { $0 == 1 } == true)
  }

  @Test(arguments: ["tiny-bert", "tiny-bert-sharded"])
  func `lossless conversion of half precision to F64 cores restores identical bits`(name: String) throws {
    let source = try openDenseCheckpoint(at: fixtures + "/" + name)
    let checkpoint = try converted(source, .lossless, to: temporary.folder("a.mpo"), dtype: .f64)
    let result = try restored(checkpoint)
    for tensor in source.tensors { #expect(try result.bytes(of: tensor.name) == source.bytes(of: tensor.name)) }
    #expect(try Verifier(jobs: 2).verify(checkpoint, against: source).problems.isEmpty)
  }

  @Test(arguments: ["tiny-bert", "tiny-bert-sharded"])
  func `lossless conversion of half precision uses F32 cores and changes next to no element`(name: String) throws {
    let source = try openDenseCheckpoint(at: fixtures + "/" + name)
    let checkpoint = try converted(source, .lossless, to: temporary.folder("a.mpo"))
    let result = try restored(checkpoint)
    for tensor in source.tensors {
      let holder = try checkpoint.holder(of: #require(checkpoint.record(named: tensor.name)))
      guard let matrix = holder.blocks else {
        #expect(try result.bytes(of: tensor.name) == source.bytes(of: tensor.name))
        continue
      }
      #expect(checkpoint.contents.namedCores(of: holder).allSatisfy { $0.encoding.values == .plain(.f32) })
      #expect(try #require(matrix.relativeError) <= 2e-6)
      // An element far smaller than the others has fewer digits of its own in the product.
      let (before, after) = (try source.values(of: tensor.name), try result.values(of: tensor.name))
      let largest = try #require(before.map(abs).max())
      let changed = zip(before, after).filter { $0 != $1 }
      #expect(changed.count <= before.count / 1000)
      #expect(changed.allSatisfy { abs($0 - $1) <= 1e-6 * largest })
    }
  }

  // MARK: - Errors

  @Test(arguments: [DType?.none, .f16, .bf16, .f64])
  func `the recorded error is the distance to the dense matrix`(dtype: DType?) throws {
    let source = try model([
      .random("single", [96, 64], seed: 1), .random("double", [80, 96], .f64, seed: 2),
      .random("prime", [67, 131], seed: 3),
    ])
    let checkpoint = try converted(source, .ratio(0.5), to: temporary.folder("a.mpo"), dtype: dtype)
    #expect(checkpoint.manifest.totals.ratio <= 0.5)
    let result = try restored(checkpoint)
    var (squaredError, squaredNorm) = (0.0, 0.0)
    for tensor in source.tensors {
      let record = try #require(checkpoint.record(named: tensor.name))
      let matrix = try #require(record.blocks)
      let cores = checkpoint.contents.namedCores(of: record)
      #expect(cores.allSatisfy { $0.encoding.values == .plain(dtype ?? tensor.dtype) })
      let values = try source.values(of: tensor.name)
      let error = relativeDifference(try result.values(of: tensor.name), values)
      #expect(abs(try #require(matrix.relativeError) - error) < 1e-6)
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(abs(try #require(matrix.norm) - norm) < 1e-6 * norm)
      let chain = try #require(checkpoint.contents.ordinaryOperator(of: record))
      #expect(chain.gauge == .compact || dtype?.bitWidth == 16)
      #expect(chain.entropies?.count == chain.bonds.count)
      squaredError += error * error * norm * norm
      squaredNorm += norm * norm
    }
    let total = try #require(checkpoint.manifest.totals.relativeError)
    #expect(abs(total - (squaredError / squaredNorm).squareRoot()) < 1e-6)
  }

  @Test func `the error stays within the plan's bound`() throws {
    let source = try model([.random("a", [96, 64], seed: 1), .random("b", [67, 131], decay: 0.9, seed: 3)])
    let profile = try SourceNetwork(source, selection: TensorSelection())
      .profile(for: ConversionRecipe(), jobs: 2).profile
    for error in [0.5, 0.1, 0.01] {
      let plan = try SqueezePlan(profile, budget: .maximumError(error))
      var recipe = ConversionRecipe()
      recipe.budget = .maximumError(error)
      let manifest = try Converter(recipe: recipe, jobs: 2, generator: "tests")
        .convert(source, plan: plan, to: temporary.folder("\(error)"))
      for (record, layer) in zip(manifest.contents.tensors, plan.layers) {
        guard let matrix = record.blocks else { continue }
        let bound = try #require(layer.relativeErrorBound)
        #expect(try #require(matrix.relativeError) <= bound * (1 + 1e-5) + 1e-6)
      }
    }
  }

  @Test func `errors above the maximum fail and name the matrices`() throws {
    let source = try model([.random("a", [96, 64], seed: 1), .random("b", [64, 64], decay: 0.5, seed: 2)])
    let folder = try temporary.folder("a.mpo")
    expectFailure("'b'", "above 0.001", "'dtype'") {
      // The plan doesn't know what bytes cost.
      _ = try converted(source, .maximumError(1e-3), to: folder, central: .int8)
    }
    #expect(!FileManager.default.fileExists(atPath: folder + "/manifest.json"))
  }

  @Test func `a matrix whose cores would not fit their type stays dense, which a ratio out of reach says`() throws {
    let source = try model([
      ModelTensor("large", .f32, [64, 64], ModelTensor.random("", [64, 64], seed: 1).values.map { $0 * 1e6 })
    ])
    let folder = try temporary.folder("a.mpo")
    expectFailure("'large'", "stay dense", "can't be reached") {
      _ = try converted(source, .ratio(0.5), to: folder, dtype: .f16)
    }
  }

  // MARK: - The same result

  @Test func `the result does not depend on the number of jobs`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    var first: [String: Data]?
    for jobs in [1, 2, 4] {
      let folder = try temporary.folder("\(jobs).mpo")
      _ = try converted(source, .ratio(0.6), to: folder, jobs: jobs)
      var files: [String: Data] = [:]
      for name in try FileManager.default.subpathsOfDirectory(atPath: folder) {
        files[name] = FileManager.default.contents(atPath: folder + "/" + name)
      }
      #expect(Set(files.keys).isSuperset(of: ["manifest.json", "tensors.safetensors", "config.json", "vocab.txt"]))
      if let first { #expect(files == first) } else { first = files }
    }
  }

  @Test func `profile, plan file and conversion one by one give what one run gives`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let whole = try converted(source, .ratio(0.6), to: temporary.folder("whole.mpo"))
    let network = try SourceNetwork(source, selection: TensorSelection())
    var recipe = ConversionRecipe()
    let parts = try [2, 1].map { index in
      let part = try #require(SourceNetwork.Part(index: index, count: 2))
      let bytes = try StageFile.encode(
        StageFile.Profile(
          source: "m", part: part, recipe: recipe, network: network.profile(for: recipe, part: part, jobs: 1).profile))
      return (
        "\(index)",
        try StageFile.decode(bytes, as: StageFile.Profile.self, format: StageFile.Profile.formatName, path: "")
      )
    }
    recipe.budget = .ratio(0.6)
    let pipeline = try ConversionPipeline(
      source, recipe: recipe, options: ConversionOptions(jobs: 2, generator: "tests"))
    let plan = try pipeline.plan(StageFile.merge(parts).network)
    let read = try StageFile.decode(
      StageFile.encode(StageFile.Plan(plan, recipe: recipe)), as: StageFile.Plan.self,
      format: StageFile.Plan.formatName, path: "")
    let folder = try temporary.folder("parts.mpo")
    try Converter(recipe: read.recipe, jobs: 2, generator: "tests").convert(source, plan: read.plan, to: folder)
    #expect(try MPOCheckpoint(path: folder).contents == whole.contents)
    #expect(
      FileManager.default.contentsEqual(
        atPath: folder + "/tensors.safetensors", andPath: temporary.path + "/whole.mpo/tensors.safetensors"))
  }

  // MARK: - What is carried over

  @Test func `the manifest says where the tensors came from`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let checkpoint = try converted(source, .ratio(0.8), to: temporary.folder("a.mpo"))
    let manifest = checkpoint.manifest
    #expect(manifest.generator == "tests")
    #expect(manifest.source?.format == .safetensors && manifest.source?.metadata == source.metadata)
    #expect(manifest.source?.files == (try source.files.map { try FileFingerprint(ofFileAt: $0) }))
    #expect(manifest.source?.files.count == 3)
    #expect(manifest.companions.map(\.file) == source.companions)
    #expect(manifest.contents.tensors.map(\.info) == source.tensors)
    for companion in source.companions {
      func bytes(_ folder: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(filePath: folder + "/" + companion)))
      }
      let (copy, original) = (try bytes(checkpoint.path), try bytes(fixtures + "/tiny-bert-sharded"))
      // The configuration says besides what loads the folder.
      let announced = copy.withUnsafeBytes { LoaderConfiguration.withoutAnnouncement($0) }
      #expect((announced != nil) == (companion == "config.json"))
      #expect((announced ?? copy) == original)
    }
    for record in manifest.contents.tensors where record.isDense {
      #expect(try checkpoint.withDenseBytes(of: record) { Array($0) } == source.bytes(of: record.name))
    }
  }

  @Test func `convolution kernels are decomposed in either orientation`() throws {
    let kernel = ModelTensor.random("kernel", [3, 3, 8, 64], decay: 0.95, seed: 1)
    let source = try model([kernel, .random("weight", [64, 72], decay: 0.95, seed: 2)])
    var selection = TensorSelection()
    selection.convolutions = true
    selection.include = ["kernel", "weight"]
    for (orientation, sides) in [(TensorInfo.Orientation.outputInput, [3, 1536]), (.inputOutput, [72, 64])] {
      let turned = Turned(source: source, orientation: orientation)
      for budget in [Budget.lossless, .ratio(0.5)] {
        let folder = try temporary.folder("\(orientation) \(budget).mpo")
        let checkpoint = try converted(turned, budget, to: folder, selection: selection)
        let record = try #require(checkpoint.record(named: "kernel"))
        #expect(record.orientation == orientation && record.shape == [3, 3, 8, 64])
        guard let matrix = record.blocks else {
          Issue.record("the kernel stayed dense")
          continue
        }
        #expect([matrix.rows, matrix.columns] == sides)
        let result = try restored(checkpoint)
        #expect(result.tensor(named: "kernel")?.shape == [3, 3, 8, 64])
        let error = relativeDifference(try result.values(of: "kernel"), kernel.values)
        #expect(abs(try #require(matrix.relativeError) - error) < 1e-6)
        #expect(budget == .lossless ? error < 2e-6 : checkpoint.manifest.totals.ratio <= 0.5)
      }
    }
  }

  @Test func `elements are what the format's formula says of the stored entries`() throws {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert-sharded")
    let checkpoint = try converted(
      source, .ratio(0.6), to: temporary.folder("a.mpo"), dtype: .f32, gauge: .canonical)
    let entries = try SafetensorsFile(path: checkpoint.path + "/tensors.safetensors")
    let result = try restored(checkpoint)
    let records = checkpoint.contents.tensors.filter { $0.blocks != nil }
    #expect(records.count > 3)
    var generator = SeededGenerator(seed: 1)
    for record in records {
      let mpo = try #require(checkpoint.contents.ordinaryOperator(of: record))
      let values = try result.values(of: record.name)
      for _ in 0..<20 {
        let (i, j) = (
          Int.random(in: 0..<mpo.rows, using: &generator), Int.random(in: 0..<mpo.columns, using: &generator)
        )
        var vector = [1.0]
        var (rowStride, columnStride) = (mpo.shape.rows, mpo.shape.columns)
        for k in 0..<mpo.shape.siteCount {
          let name = "\(record.name).cores.\(k)"
          let core = try entries.values(of: name)
          let shape = try #require(entries.tensor(named: name)?.shape)
          rowStride /= shape[1]
          columnStride /= shape[2]
          let (ik, jk) = (i / rowStride % shape[1], j / columnStride % shape[2])
          vector = (0..<shape[3]).map { right in
            (0..<shape[0]).reduce(0) { sum, left in
              sum + vector[left] * core[((left * shape[1] + ik) * shape[2] + jk) * shape[3] + right]
            }
          }
        }
        let restored = values[i * mpo.columns + j]
        // Restored to BF16: eight bits of precision.
        #expect(vector.count == 1 && abs(vector[0] - restored) <= max(abs(restored) / 255, 1e-6))
      }
    }
  }
}

/// A checkpoint whose tensors say another side is the input, as those of Keras do.
private struct Turned: DenseCheckpoint {
  let source: any DenseCheckpoint
  let orientation: TensorInfo.Orientation

  var path: String { source.path }
  var format: CheckpointFormat { source.format }
  var files: [String] { source.files }
  var metadata: CheckpointMetadata { source.metadata }
  var companions: [String] { source.companions }
  var folder: String? { source.folder }
  var tensors: [TensorInfo] {
    source.tensors.map { TensorInfo(name: $0.name, dtype: $0.dtype, shape: $0.shape, orientation: orientation) }
  }

  func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard let own = source.tensor(named: tensor.name) else { throw CocoaError(.fileNoSuchFile) }
    return try source.withBytes(of: own, body)
  }
}
