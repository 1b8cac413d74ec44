import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Reports
import TensorNetworks

/// What `mpo inspect` prints of an MPO checkpoint.
struct MPOInspection {
  private let checkpoint: MPOCheckpoint
  private let counts: [TensorName: Double]

  init(_ checkpoint: MPOCheckpoint) {
    self.checkpoint = checkpoint
    counts = checkpoint.contents.apportionedValueCounts
  }

  func print(tensor name: String?, spectrum: Bool, json: Bool, lines: LineOptions, pages: Bool)
    throws
  {
    guard let name else {
      return json
        ? try StandardOutput.writeJSON(checkpoint.manifest)
        : try Terminal.show(text(lines), pages: pages)
    }
    guard let record = checkpoint.record(named: name) else {
      throw MPOCheckpointError.tensor(
        path: checkpoint.path, tensor: name,
        reason: "the checkpoint has no tensor of this name; 'mpo inspect' lists the names")
    }
    let spectra = spectrum ? try storedSpectra(of: record, in: checkpoint) : nil
    if json {
      try StandardOutput.writeJSON(TensorReport(record, in: checkpoint.contents, spectra: spectra))
    } else {
      try Terminal.show(text(of: record) + (spectra.map(SpectraText.text) ?? ""), pages: pages)
    }
  }

  /// A tensor with the operators and cores that it is made of, and its spectra.
  private struct TensorReport: Encodable {
    let tensor: TensorRecord
    let operators: [OperatorRecord]
    let cores: [CoreRecord]
    let spectra: SingularSpectra?

    enum CodingKeys: String, CodingKey { case operators, cores }

    init(_ record: TensorRecord, in contents: CheckpointContents, spectra: SingularSpectra?) {
      tensor = record
      operators = record.blocks?.operators.compactMap { contents.operator(named: $0) } ?? []
      cores = contents.namedCores(of: record)
      self.spectra = spectra
    }

    func encode(to encoder: any Encoder) throws {
      try tensor.encode(to: encoder)
      var container = encoder.container(keyedBy: CodingKeys.self)
      if !operators.isEmpty {
        try container.encode(operators, forKey: .operators)
        try container.encode(cores, forKey: .cores)
      }
      try spectra?.encode(to: encoder)
    }
  }

  private func text(_ lines: LineOptions) throws -> String {
    let manifest = checkpoint.manifest
    var text = "\(escaped(checkpoint.path, limit: 4096)): MPO checkpoint \(escaped(manifest.version)), "
    text += "written by \(escaped(manifest.generator))"
    if let source = manifest.source {
      text += " from \(source.files.map { escaped($0.file) }.joined(separator: ", ")) (\(source.format.rawValue))"
    }
    text += "\n"
    if let recipe = manifest.conversion { text += RecipeText.text(of: recipe) }
    if let squeeze = manifest.squeeze {
      text +=
        "squeezed in \(squeeze.rounds) rounds, \(escaped(squeeze.limit)): score \(squeeze.baselineScore) -> "
        + "\(squeeze.score)\n"
    }
    let contents = manifest.contents
    let matrices = contents.tensors.filter { $0.blocks != nil }
    let dense = contents.tensors.filter(\.isDense)
    let shown = try lines.selected(
      matrices, path: checkpoint.path, name: \.name,
      value: { record, key in
        switch key {
        case .name: nil
        case .size: Double(record.info.elementCount)
        case .numbers: counts[record.info.key]
        case .ratio: (counts[record.info.key] ?? 0) / Double(max(1, record.info.elementCount))
        case .error: record.blocks.flatMap { $0.metricRelativeError ?? $0.relativeError }
        case .svd: record.blocks?.svdRelativeError
        }
      })
    if !shown.isEmpty { text += "\n" + table(of: shown).text(fitting: Terminal.size()?.columns) }
    if shown.count < matrices.count { text += "\(shown.count) of \(matrices.count) matrices\n" }
    for record in contents.tensors where lines.given.isEmpty {
      if case .tied(let other) = record.storage {
        text += "\(escaped(record.name)): the same as \(escaped(other))\n"
      }
    }
    let totals = manifest.totals
    let tied = contents.tensors.count - matrices.count - dense.count
    let kept = dense.reduce(0) { $0 + $1.info.elementCount }
    text += """

      tensors     \(matrices.count) as cores, \(dense.count) dense (\(grouped(kept)) parameters), \(tied) tied
      parameters  \(grouped(totals.parametersBefore)) -> \(grouped(totals.parametersStored)) \
      (ratio \(fixed(totals.ratio, 4)))
      trainable   \(grouped(totals.parametersTrainable)) (auxiliary cores and vectors)
      bytes       \(Summary.bytes(of: totals))
      error       \(small(totals.relativeError)) relative, over the matrices in cores

      """
    if let encodings = Summary.encodings(of: manifest) { text += "encodings   \(encodings)\n" }
    if let count = totals.parametersOfTraining {
      text += "training    \(grouped(count)) numbers of training state, unchanged\n"
    }
    return text
  }

  private func table(of records: [TensorRecord]) -> Table {
    let inMetric = records.contains { $0.blocks?.metricRelativeError != nil }
    typealias Column = Table.Column
    var table = Table(
      columns: [
        Column("matrix", .left), Column("shape", .right, dispensability: 1),
        Column("side", .left, dispensability: 6),
        Column("factors", .left, dispensability: 5), Column("bonds", .left, dispensability: 3),
        Column("cores", .left, dispensability: 4), Column("ratio", .right),
      ] + (inMetric ? [Column("in metric", .right)] : []) + [
        Column("error", .right), Column("SVD", .right, dispensability: 2),
        Column("entropies", .left, dispensability: 7),
      ])
    for record in records {
      guard let matrix = record.blocks else { continue }
      table.add(
        [escaped(record.name), sizes(record.shape), record.orientation?.rawValue ?? ""] + chainCells(of: record)
          + [ratio(of: record)]
          + (inMetric ? [small(matrix.metricRelativeError)] : [])
          + [
            small(matrix.relativeError), small(matrix.svdRelativeError),
            entropies(of: record, decimals: 2),
          ],
        colours: [7: Self.colour(of: matrix.metricRelativeError ?? matrix.relativeError)]
          .compactMapValues(\.self))
    }
    return table
  }

  /// How much an error is, for a first look.
  private static func colour(of error: Double?) -> Terminal.Colour? {
    error.map { $0 < 0.1 ? .green : $0 < 0.3 ? .yellow : .red }
  }

  /// Factors, bonds and encoding of an ordinary matrix; what else a tensor is made of.
  private func chainCells(of record: TensorRecord) -> [String] {
    let cores = encodings(of: checkpoint.contents.namedCores(of: record).filter { $0.role != .permutation })
    guard let matrix = record.blocks else { return ["", "", ""] }
    if let chain = matrix.wholeOperator.flatMap({ checkpoint.contents.operator(named: $0) }) {
      let bases = [chain.rowBasis, chain.columnBasis].compactMap(\.self)
      return [chain.shape.description + (bases.isEmpty ? "" : ", in bases"), list(chain.bonds), cores]
    }
    let terms = matrix.blocks[0]
    if matrix.blocks.count > 1 { return ["\(matrix.blocks.count) blocks", "", cores] }
    return [terms.count > 1 ? "sum of \(terms.count) operators" : Self.text(of: terms[0]), "", cores]
  }

  /// The numbers of a tensor over its elements; of cores that it shares its part is counted.
  private func ratio(of record: TensorRecord) -> String {
    fixed((counts[record.info.key] ?? 0) / Double(max(1, record.info.elementCount)), 4)
  }

  private func entropies(of record: TensorRecord, decimals: Int) -> String {
    checkpoint.contents.ordinaryOperator(of: record)?.entropies.map {
      $0.map { fixed($0, decimals) }.joined(separator: " ")
    } ?? "–"
  }

  /// The encodings of cores, each once.
  private func encodings(of cores: [CoreRecord]) -> String {
    var seen: Set<String> = []
    return cores.map(\.encoding.description).filter { seen.insert($0).inserted }.joined(separator: "/")
  }

  private func text(of record: TensorRecord) -> String {
    var lines: [(String, String)] = [
      ("tensor", escaped(record.name)), ("dtype", record.dtype.rawValue), ("shape", sizes(record.shape)),
    ]
    if let orientation = record.orientation { lines.append(("sides", orientation.rawValue)) }
    let contents = checkpoint.contents
    switch record.storage {
    case .dense(let encoding): lines.append(("kind", "dense, \(encoding.description)"))
    case .tied(let other): lines.append(("kind", "tied to \(escaped(other))"))
    case .blocks(let matrix):
      let (count, own) = (contents.valueCount(of: record), Int((counts[record.info.key] ?? 0).rounded()))
      let share = own == count ? "" : ", its share of shared cores: \(grouped(own))"
      lines += [
        ("kind", "mpo"), ("matrix", sizes([matrix.rows, matrix.columns])),
        (
          "parameters",
          "\(grouped(count)) of \(grouped(matrix.rows * matrix.columns))\(share) (ratio \(ratio(of: record)))"
        ),
        ("in metric", matrix.metricRelativeError.map { "\(small($0)) relative" } ?? "–"),
        ("error", "\(small(matrix.relativeError)) relative"),
        ("SVD error", matrix.svdRelativeError.map { "\(small($0)) relative, at the same size" } ?? "–"),
        ("norm", matrix.norm.map { fixed($0, 4) } ?? "–"),
      ]
      for (index, block) in matrix.blocks.enumerated() where matrix.wholeOperator == nil {
        lines.append(("block \(index)", block.map(Self.text).joined(separator: " + ")))
      }
      for chain in matrix.operators.compactMap({ contents.operator(named: $0) }) { lines += self.lines(of: chain) }
    }
    let arrays = contents.namedCores(of: record)
    let stored = record.array?.storedBytes ?? arrays.reduce(0) { $0 + $1.storedBytes }
    if stored > 0 {
      let entries = record.array?.entries ?? arrays.flatMap(\.entries)
      let unpacked = entries.reduce(0) { $0 + $1.byteCount }
      lines.append(
        (
          "bytes",
          "\(bytes(record.info.byteCount)) -> \(bytes(stored))"
            + (stored == unpacked ? "" : ", packed from \(bytes(unpacked))")
        ))
    }
    return lines.map { name, value in
      name + String(repeating: " ", count: max(1, 12 - name.count)) + value + "\n"
    }.joined()
  }

  private func lines(of chain: OperatorRecord) -> [(String, String)] {
    var lines = [
      ("operator", escaped(chain.name)), ("gauge", chain.gauge.rawValue),
      ("padded", sizes([chain.shape.rows, chain.shape.columns])), ("factors", chain.shape.description),
      ("bonds", "\(list(chain.bonds)) of \(list(chain.shape.fullBonds))"),
      ("entropies", chain.entropies.map { $0.map { fixed($0, 4) }.joined(separator: " ") } ?? "–"),
    ]
    let shared = checkpoint.contents.sharedCores
    for (index, named) in chain.namedCores.enumerated() {
      guard let core = checkpoint.contents.core(named: named.name) else { continue }
      let role = core.role.rawValue.replacing("_", with: " ")
      let isOfRows = chain.rowBasis?.cores.contains { TensorName($0.name) == TensorName(named.name) } ?? false
      let isOfColumns = chain.columnBasis?.cores.contains { TensorName($0.name) == TensorName(named.name) } ?? false
      let side = (isOfRows ? "rows' " : "") + (isOfColumns ? "columns' " : "")
      let stored = core.valueCount == core.shape.reduce(1, *) ? "" : ", \(grouped(core.valueCount)) numbers stored"
      lines.append(
        (
          index < chain.cores.count ? "core \(index)" : "with",
          "\(sizes(core.shape)) \(core.encoding.description), \(side)\(role)\(stored)\(Self.scales(of: core.encoding))"
            + (shared.contains(TensorName(named.name)) ? ", shared" : "")
        ))
    }
    return lines
  }

  private static func scales(of encoding: ArrayEncoding) -> String {
    if case .scaled(let shape) = encoding.values { ", scales \(sizes(shape))" } else { "" }
  }

  private static func text(of term: BlockMatrix.Term) -> String {
    func range(_ side: String, _ range: Range<Int>?) -> String {
      range.map { ", \(side) \($0.lowerBound) to \($0.upperBound - 1)" } ?? ""
    }
    return escaped(term.operator) + range("rows", term.rows) + range("columns", term.columns)
  }
}

/// Singular values, a line a bond.
enum SpectraText {
  static func text(of spectra: SingularSpectra) -> String {
    spectra.spectra.enumerated().map { bond, values in
      "bond \(bond + 1), \(values.count) singular values: \(SparkLine.text(values))\n"
        + values.map { "  \($0)\n" }.joined()
    }.joined()
  }
}
