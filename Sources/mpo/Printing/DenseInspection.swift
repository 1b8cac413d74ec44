import Checkpoints
import Conversion
import Files
import Recipes
import TensorNetworks

/// What `mpo inspect` prints of a dense checkpoint.
struct DenseInspection {
  private let checkpoint: any DenseCheckpoint

  init(_ checkpoint: any DenseCheckpoint) { self.checkpoint = checkpoint }

  func print(tensor name: String?, spectrum: Bool, json: Bool) throws {
    guard let name else {
      return json ? try StandardOutput.writeJSON(summary) : try StandardOutput.write(text)
    }
    guard let tensor = checkpoint.tensor(named: name) else {
      throw CheckpointError.malformed(
        file: checkpoint.path, tensor: name,
        reason: "the checkpoint has no tensor of this name; 'mpo inspect' lists the names")
    }
    let spectra = spectrum ? try sourceSpectra(of: tensor, in: checkpoint) : nil
    if json {
      try StandardOutput.writeJSON(Tensor(tensor, spectra))
    } else {
      try StandardOutput.write(Self.table(of: [tensor]).text + (spectra.map(SpectraText.text) ?? ""))
    }
  }

  private struct Tensor: Encodable {
    let name: String
    let dtype: DType
    let shape: [Int]
    let orientation: TensorInfo.Orientation
    let parameters: Int
    let spectra: [[Double]]?

    init(_ tensor: TensorInfo, _ spectra: SingularSpectra? = nil) {
      name = tensor.name
      dtype = tensor.dtype
      shape = tensor.shape
      orientation = tensor.orientation
      parameters = tensor.elementCount
      self.spectra = spectra?.spectra
    }
  }

  private struct Summary: Encodable {
    let format: CheckpointFormat
    let files: [String]
    let companions: [String]
    let metadata: CheckpointMetadata
    let parameters: Int
    let bytes: Int
    let tensors: [Tensor]
  }

  private var summary: Summary {
    Summary(
      format: checkpoint.format, files: checkpoint.files, companions: checkpoint.companions,
      metadata: checkpoint.metadata, parameters: checkpoint.tensors.reduce(0) { $0 + $1.elementCount },
      bytes: checkpoint.tensors.reduce(0) { $0 + $1.byteCount }, tensors: checkpoint.tensors.map { Tensor($0) })
  }

  private var text: String {
    let summary = summary
    let files = summary.files.count == 1 ? "1 file" : "\(summary.files.count) files"
    return """
      \(escaped(checkpoint.path, limit: 4096)): dense checkpoint, \(checkpoint.format.rawValue), \(files)

      \(Self.table(of: checkpoint.tensors).text)
      tensors     \(checkpoint.tensors.count)
      parameters  \(grouped(summary.parameters))
      bytes       \(bytes(summary.bytes))

      """
  }

  /// Matrices with the factors that a conversion would use.
  private static func table(of tensors: [TensorInfo]) -> Table {
    var table = Table([
      ("tensor", .left), ("dtype", .left), ("shape", .right), ("side", .left), ("parameters", .right),
      ("factors", .left), ("full bonds", .left),
    ])
    for tensor in tensors {
      let shape = TensorSelection().defaultShape(for: tensor)
      table.add([
        escaped(tensor.name), tensor.dtype.rawValue, sizes(tensor.shape),
        tensor.shape.count > 1 ? tensor.orientation.rawValue : "", grouped(tensor.elementCount),
        shape?.description ?? "", shape.map { list($0.fullBonds) } ?? "",
      ])
    }
    return table
  }
}
