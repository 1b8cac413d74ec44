import Checkpoints
import Conversion
import Files
import Recipes
import Reports
import TensorNetworks

/// What `mpo inspect` prints of a dense checkpoint.
struct DenseInspection {
  private let checkpoint: any DenseCheckpoint

  init(_ checkpoint: any DenseCheckpoint) { self.checkpoint = checkpoint }

  func print(tensor name: String?, spectrum: Bool, json: Bool, lines: LineOptions, pages: Bool)
    throws
  {
    guard let name else {
      return json
        ? try StandardOutput.writeJSON(summary) : try Terminal.show(text(lines), pages: pages)
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
      try Terminal.show(
        Self.table(of: [tensor]).text(fitting: Terminal.size()?.columns)
          + (spectra.map(SpectraText.text) ?? ""),
        pages: pages)
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

  private func text(_ lines: LineOptions) throws -> String {
    let summary = summary
    let files = summary.files.count == 1 ? "1 file" : "\(summary.files.count) files"
    let shown = try lines.selected(
      checkpoint.tensors, path: checkpoint.path, name: \.name,
      value: { tensor, key in key == .size || key == .numbers ? Double(tensor.elementCount) : nil })
    let part =
      shown.count < checkpoint.tensors.count
      ? "\(shown.count) of \(checkpoint.tensors.count) tensors\n" : ""
    return """
      \(escaped(checkpoint.path, limit: 4096)): dense checkpoint, \(checkpoint.format.rawValue), \(files)

      \(Self.table(of: shown).text(fitting: Terminal.size()?.columns))\(part)
      tensors     \(checkpoint.tensors.count)
      parameters  \(grouped(summary.parameters))
      bytes       \(bytes(summary.bytes))

      """
  }

  /// Matrices with the factors that a conversion would use.
  private static func table(of tensors: [TensorInfo]) -> Table {
    typealias Column = Table.Column
    var table = Table(columns: [
      Column("tensor", .left), Column("dtype", .left, dispensability: 1), Column("shape", .right),
      Column("side", .left, dispensability: 4), Column("parameters", .right, dispensability: 2),
      Column("factors", .left, dispensability: 3), Column("full bonds", .left, dispensability: 5),
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
