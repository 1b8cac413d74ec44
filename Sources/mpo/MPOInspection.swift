import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import TensorNetworks

/// What `mpo inspect` prints of an MPO checkpoint.
struct MPOInspection {
  private let checkpoint: MPOCheckpoint

  init(_ checkpoint: MPOCheckpoint) { self.checkpoint = checkpoint }

  func print(tensor name: String?, spectrum: Bool, json: Bool) throws {
    guard let name else {
      return json ? try StandardOutput.writeJSON(checkpoint.manifest) : try StandardOutput.write(text)
    }
    guard let record = checkpoint.record(named: name) else {
      throw MPOCheckpointError.tensor(
        path: checkpoint.path, tensor: name, reason: "there is none of that name; 'mpo inspect' lists them")
    }
    let spectra = spectrum ? try storedSpectra(of: record, in: checkpoint) : nil
    if json {
      try StandardOutput.writeJSON(TensorWithSpectra(record: record, spectra: spectra))
    } else {
      try StandardOutput.write(text(of: record) + (spectra.map(SpectraText.text) ?? ""))
    }
  }

  private struct TensorWithSpectra: Encodable {
    let record: TensorRecord
    let spectra: SingularSpectra?

    func encode(to encoder: any Encoder) throws {
      try record.encode(to: encoder)
      try spectra?.encode(to: encoder)
    }
  }

  private var text: String {
    let manifest = checkpoint.manifest
    var text = "\(escaped(checkpoint.path, limit: 4096)): MPO checkpoint \(escaped(manifest.version)), "
    text += "written by \(escaped(manifest.generator))"
    if let source = manifest.source {
      text += " from \(source.files.map { escaped($0.file) }.joined(separator: ", ")) (\(source.format.rawValue))"
    }
    text += "\n"
    var options = manifest.options ?? [:]
    let calibration = options.removeValue(forKey: "calibration")
    let calibrationHash = options.removeValue(forKey: "calibration_sha256")
    if !options.isEmpty {
      text +=
        options.sorted { $0.key < $1.key }.map { "\(escaped($0.key)): \(escaped($0.value))" }
        .joined(separator: ", ") + "\n"
    }
    if let calibration {
      text += "metric: \(escaped(calibration, limit: 4096))"
      text += calibrationHash.map { " (SHA-256 \(escaped(String($0.prefix(12))))…)\n" } ?? "\n"
    }
    let matrices = manifest.tensors.filter { $0.mpo != nil }
    let dense = manifest.tensors.filter { $0.storage == .dense }
    if !matrices.isEmpty { text += "\n" + Self.table(of: matrices).text }
    for record in manifest.tensors {
      if case .tied(let other) = record.storage {
        text += "\(escaped(record.name)): the same as \(escaped(other))\n"
      }
    }
    let totals = manifest.totals
    let tied = manifest.tensors.count - matrices.count - dense.count
    let kept = dense.reduce(0) { $0 + $1.info.elementCount }
    text += """

      tensors     \(matrices.count) as cores, \(dense.count) dense (\(grouped(kept)) parameters), \(tied) tied
      parameters  \(grouped(totals.parametersBefore)) -> \(grouped(totals.parametersStored)) \
      (ratio \(fixed(totals.ratio, 4)))
      trainable   \(grouped(totals.parametersTrainable)) without the central cores
      bytes       \(Summary.bytes(of: totals))
      error       \(small(totals.relativeError)) relative, over the matrices in cores

      """
    return text
  }

  private static func table(of records: [TensorRecord]) -> Table {
    let inMetric = records.contains { $0.mpo?.metricRelativeError != nil }
    var table = Table(
      [
        ("matrix", .left), ("shape", .right), ("side", .left), ("factors", .left), ("bonds", .left), ("dtype", .left),
        ("ratio", .right), ("error", .right),
      ] + (inMetric ? [("in metric", .right)] : []) + [("SVD", .right), ("entropies", .left)])
    for record in records {
      guard let mpo = record.mpo else { continue }
      table.add(
        [
          escaped(record.name), sizes(record.shape), record.orientation?.rawValue ?? "", mpo.shape.description,
          list(mpo.bonds), mpo.coreDType.rawValue + (mpo.centralScales == nil ? "" : "/I8"), fixed(mpo.ratio, 4),
          small(mpo.relativeError),
        ] + (inMetric ? [small(mpo.metricRelativeError)] : []) + [
          small(mpo.svdRelativeError), mpo.entropies.map { $0.map { fixed($0, 2) }.joined(separator: " ") } ?? "–",
        ])
    }
    return table
  }

  private func text(of record: TensorRecord) -> String {
    var lines: [(String, String)] = [
      ("tensor", escaped(record.name)), ("dtype", record.dtype.rawValue), ("shape", sizes(record.shape)),
    ]
    if let orientation = record.orientation { lines.append(("sides", orientation.rawValue)) }
    switch record.storage {
    case .dense: lines.append(("kind", "dense"))
    case .tied(let other): lines.append(("kind", "tied to \(escaped(other))"))
    case .mpo(let mpo):
      lines += [
        ("kind", "mpo"), ("matrix", sizes([mpo.rows, mpo.columns])),
        ("padded", sizes([mpo.shape.rows, mpo.shape.columns])), ("factors", mpo.shape.description),
        ("bonds", "\(list(mpo.bonds)) of \(list(mpo.shape.fullBonds))"),
        (
          "parameters",
          "\(grouped(mpo.parameterCount)) of \(grouped(mpo.rows * mpo.columns)) "
            + "(ratio \(fixed(mpo.ratio, 4)))"
        ),
        ("error", "\(small(mpo.relativeError)) relative"),
        ("in metric", mpo.metricRelativeError.map { "\(small($0)) relative" } ?? "–"),
        ("SVD error", "\(small(mpo.svdRelativeError)) relative, at the same size"),
        ("norm", mpo.norm.map { fixed($0, 4) } ?? "–"),
        ("entropies", mpo.entropies.map { $0.map { fixed($0, 4) }.joined(separator: " ") } ?? "–"),
      ]
      for (index, entry) in record.entries.enumerated() {
        guard index < mpo.shape.siteCount else {
          lines.append(("scales", "\(sizes(entry.shape)) \(entry.dtype.rawValue), of core \(mpo.shape.centralIndex)"))
          continue
        }
        let role = index == mpo.shape.centralIndex ? "central" : "auxiliary"
        lines.append(("core \(index)", "\(sizes(entry.shape)) \(entry.dtype.rawValue), \(role)"))
      }
    }
    if !record.entries.isEmpty {
      let unpacked = record.entries.reduce(0) { $0 + $1.byteCount }
      let stored = bytes(record.storedBytes) + (record.packed.isEmpty ? "" : ", packed from \(bytes(unpacked))")
      lines.append(("bytes", "\(bytes(record.info.byteCount)) -> \(stored)"))
    }
    return lines.map { name, value in
      name + String(repeating: " ", count: max(1, 12 - name.count)) + value + "\n"
    }.joined()
  }
}

/// Singular values, a line a bond.
enum SpectraText {
  static func text(of spectra: SingularSpectra) -> String {
    spectra.spectra.enumerated().map { bond, values in
      "bond \(bond + 1), \(values.count) singular values:\n"
        + values.map { "  \($0)\n" }.joined()
    }.joined()
  }
}
