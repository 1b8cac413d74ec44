import Checkpoints
import Conversion
import Recipes
import Squeezing

/// What is written into the template of the page.
struct ReportPage {
  let report: Report
  let names: [String]
  let map: NetworkMap
  /// For each subject its figures by the name of the matrix.
  let figures: [[TensorName: MatrixFigures]]
  let largestError: Double
  /// The positions among the names that are shown in full.
  let detailed: [Int]

  /// So many columns of a map have room for text.
  private static let narrowColumns = 14

  init(_ report: Report) {
    self.report = report
    names = report.names
    map = NetworkMap(names)
    figures = report.subjects.map { subject in
      Dictionary(
        subject.matrices.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    }
    largestError = report.subjects.flatMap { $0.matrices.compactMap(\.error) }.max() ?? 0
    detailed = Self.detailed(names, figures, chosen: report.chosen)
  }

  func html() throws -> String { try PageTemplate.render(content()) }

  private static func detailed(
    _ names: [String], _ figures: [[TensorName: MatrixFigures]], chosen: [String]
  ) -> [Int] {
    guard names.count > Report.detailLimit else { return Array(names.indices) }
    let asked = names.indices.filter { index in chosen.contains { matches($0, names[index]) } }
    if !asked.isEmpty { return Array(asked.prefix(Report.detailLimit)) }
    func weight(_ index: Int) -> Double {
      figures.map { own in
        own[TensorName(names[index])].map {
          ($0.error ?? 0) * ($0.error ?? 0) * Double($0.elements)
        } ?? 0
      }.max() ?? 0
    }
    let weights = names.indices.map(weight)
    return Array(
      names.indices.sorted { (weights[$1], $0) < (weights[$0], $1) }.prefix(Report.detailLimit / 3)
    ).sorted()
  }

  // MARK: - The parts of the page

  private func content() throws -> [String: Any] {
    let details = MatrixDetails(self)
    let groups = details.groups()
    var content: [String: Any] = [
      "style": PageStyle.css, "generator": report.texts.generator, "title": title,
      "subtitle": subtitle,
      "notes": notes.map { ["text": $0] }, "hasCards": report.subjects.count == 1, "cards": cards,
      "subjects": headings, "summary": summary, "maps": maps,
      "ratioScale": scale { fixed($0 / 9, 2) },
      "errorScale": scale { step in
        let error = step / 9 * largestError
        return error == 0 || error >= 1e-3 ? fixed(error, 3) : small(error)
      },
      "kinds": kinds, "dense": dense, "hasDetails": !groups.isEmpty, "groups": groups,
      "detailsNote": details.note, "tables": report.subjects.indices.map(table),
      "hasRecipes": !recipes.isEmpty, "recipes": recipes,
      "hasLoading": isLoadable,
      "loading": report.texts.loading.map { ["title": $0.title, "code": $0.code] },
    ]
    if let budget = try budget() { content["budget"] = budget }
    return content
  }

  private var isLoadable: Bool {
    report.subjects.contains { $0.kind == .checkpoint } && !report.texts.loading.isEmpty
  }

  private var title: String {
    report.subjects.count == 1
      ? "\(report.subjects[0].label): \(report.subjects[0].kind.rawValue)"
      : "\(report.subjects.map(\.label).joined(separator: ", ")) side by side"
  }

  private var subtitle: String {
    let files = report.subjects.first { !$0.sources.isEmpty }?.sources ?? []
    let cores = report.subjects.map { "\($0.matrices.count { $0.state == .cores })" }.joined(
      separator: ", ")
    let made =
      files.isEmpty
      ? ""
      : " Made from \(files.prefix(3).joined(separator: ", "))\(files.count > 3 ? " and \(files.count - 3) more files" : "")."
    return "\(names.count) matrices; as cores: \(cores).\(made)"
  }

  private var notes: [String] {
    var notes: [String] = []
    let sources = report.subjects.filter { !$0.sources.isEmpty }
    if let other = sources.first(where: { $0.sources != sources[0].sources }) {
      notes.append(
        "\(other.label) was made from other files than \(sources[0].label): their weights may differ."
      )
    }
    for subject in report.subjects {
      if let history = subject.history { notes.append("\(subject.label) was \(history).") }
      if subject.isPredicted {
        notes.append("\(subject.label) is a plan: its errors are expected, not measured.")
      }
    }
    return notes
  }

  /// The names of the columns, with their signs in pictures.
  var headings: [[String: Any]] {
    zip(report.signs, report.subjects).map { sign, subject in
      ["heading": sign.isEmpty ? subject.label : "\(sign): \(subject.label)"]
    }
  }

  private var cards: [[String: Any]] {
    guard report.subjects.count == 1 else { return [] }
    let subject = report.subjects[0]
    var cards = [
      (
        "Numbers", "\(grouped(subject.parametersAfter))",
        "of \(grouped(subject.parametersBefore)), ratio \(fixed(subject.ratio, 4))"
      )
    ]
    if let before = subject.bytesBefore, let after = subject.bytesAfter {
      cards.append(
        (
          "Bytes", bytes(after),
          "of \(bytes(before)), \(fixed(100 * Double(after) / Double(max(1, before)), 1)) %"
        ))
    }
    if let error = subject.metricError {
      cards.append(
        (
          "Error in the metric", small(error),
          "relative, root mean square over the matrices in cores"
        ))
    }
    if let error = subject.relativeError {
      cards.append(
        ("Error of the weights", small(error), "relative (Frobenius), over the matrices in cores"))
    }
    if subject.kind == .checkpoint {
      let kept = subject.dense.reduce(0) { $0 + $1.elements }
      let reasons = subject.dense.prefix(3).map { "\($0.reason.rawValue): \($0.tensors)" }
      cards.append(
        (
          "Stays dense", "\(subject.dense.reduce(0) { $0 + $1.tensors }) tensors",
          (["\(grouped(kept)) numbers"] + reasons).joined(separator: "; ")
        ))
    } else {
      let cores = subject.matrices.count { $0.state == .cores }
      cards.append(("Matrices as cores", "\(cores)", "of \(subject.matrices.count); the others stay dense"))
    }
    return cards.map { ["name": $0.0, "value": $0.1, "detail": $0.2] }
  }

  private var summary: [[String: Any]] {
    func row(_ name: String, _ value: (ReportSubject) -> String?) -> [String: Any]? {
      let values = report.subjects.map(value)
      guard values.contains(where: { $0 != nil }) else { return nil }
      return ["name": name, "values": values.map { ["text": $0 ?? "–"] }]
    }
    return [
      row("what it is") { $0.kind.rawValue },
      row("parameters before") { grouped($0.parametersBefore) },
      row("parameters stored") { grouped($0.parametersAfter) },
      row("ratio") { fixed($0.ratio, 4) },
      row("parameters outside the central cores") { $0.trainable.map(grouped) },
      row("bytes") { subject in
        subject.bytesBefore.flatMap { before in
          subject.bytesAfter.map { "\(bytes(before)) → \(bytes($0))" }
        }
      },
      row("error in the metric, root mean square") { $0.metricError.map { small($0) } },
      row("error of the weights (Frobenius)") { $0.relativeError.map { small($0) } },
      row("matrices as cores") { subject in "\(subject.matrices.count { $0.state == .cores })" },
      row("tensors that stay dense") { subject in
        subject.kind == .checkpoint ? "\(subject.dense.reduce(0) { $0 + $1.tensors })" : nil
      },
      row("tied tensors") { $0.kind == .checkpoint ? "\($0.tied)" : nil },
      row("made from") { $0.sources.isEmpty ? nil : $0.sources.prefix(3).joined(separator: ", ") },
    ].compactMap(\.self)
  }

  private func budget() throws -> [String: Any]? {
    guard let profile = report.profile else { return nil }
    guard let curve = try? NetworkCurve(profile.network, curveSettings) else { return nil }
    let errors = NetworkErrors(of: profile.network)
    let chosen = report.subjects.indices.compactMap {
      index -> (sign: String, stored: Int, error: Double)? in
      let subject = report.subjects[index]
      guard subject.kind == .checkpoint || subject.kind == .plan else { return nil }
      let own = figures[index]
      let total = errors.total(
        profile.network.layers.map { layer in
          guard let matrix = own[TensorName(layer.name)] else { return nil }
          if matrix.state != .cores { return 0 }
          return curve.measure == .metric ? matrix.metricError : matrix.relativeError
        })
      return total.map { (report.signs[index], subject.parametersAfter, $0) }
    }
    let measure =
      curve.measure == .metric
      ? "The error is the root mean square over the profiled matrices, in the metric of the statistics."
      : "The error is that of all profiled matrices together, in the Frobenius norm."
    let points =
      chosen.isEmpty
      ? "" : " The marked points are what was chosen: measured for checkpoints, expected for plans."
    return [
      "picture": BudgetPicture(parameters: profile.network.parameters, curve: curve, chosen: chosen)
        .svg,
      "caption": "What a plan expects at every ratio. \(measure)\(points)",
    ]
  }

  /// How the plans of the columns count; of columns that differ, as the profile's recipe says.
  var curveSettings: CurveSettings {
    var recipes: [ConversionRecipe] = []
    for subject in report.subjects {
      if let recipe = subject.recipe, recipes.last?.structure != recipe.structure {
        recipes.append(recipe)
      }
    }
    let recipe = recipes.count == 1 ? recipes[0] : report.profile?.recipe ?? ConversionRecipe()
    return recipe.curveSettings(sourceDType: report.profile?.sourceDType)
  }

  private func scale(_ text: (Double) -> String) -> [[String: Any]] {
    (0..<9).map { ["step": "\($0)", "text": text(Double($0))] }
  }

  private var kinds: String {
    var places: [String: Int] = [:]
    var kinds: [(name: String, before: Double, after: [Double])] = []
    for (index, name) in names.enumerated() {
      let matrices = figures.map { $0[TensorName(name)] }
      let kind = map.kinds[index].isEmpty ? name : map.kinds[index]
      let place = places[kind] ?? kinds.count
      if place == kinds.count {
        places[kind] = place
        kinds.append((kind, 0, figures.map { _ in 0 }))
      }
      kinds[place].before += Double(matrices.compactMap { $0?.elements }.first ?? 0)
      for (column, matrix) in matrices.enumerated() {
        kinds[place].after[column] += matrix?.stored ?? 0
      }
    }
    return KindPicture(
      kinds.map { KindPicture.Kind(name: $0.name, before: $0.before, after: $0.after) },
      signs: report.signs
    ).svg
  }

  private var dense: [[String: Any]] {
    report.subjects.filter { !$0.dense.isEmpty }.map { subject in
      var entry: [String: Any] = [
        "rows": subject.dense.map {
          [
            "reason": $0.reason.rawValue, "tensors": "\($0.tensors)",
            "elements": grouped($0.elements),
          ]
        }
      ]
      if report.subjects.count > 1 { entry["label"] = subject.label }
      return entry
    }
  }

  private var recipes: [[String: Any]] {
    report.subjects.compactMap { subject in
      guard let recipe = subject.recipe, let yaml = try? recipe.yaml() else { return nil }
      var entry: [String: Any] = ["yaml": yaml]
      if report.subjects.count > 1 { entry["label"] = subject.label }
      if let command = report.texts.command(recipe) { entry["command"] = command }
      return entry
    }
  }

  // MARK: - Maps and tables

  private var maps: [[String: Any]] {
    report.subjects.indices.map { column in
      var entry: [String: Any] = [
        "blocks": map.blocks.map { block in
          let name = block.title.isEmpty ? "beside the layers" : block.title
          let label =
            report.subjects.count == 1 ? name : "\(report.subjects[column].label), \(name)"
          return [
            "label": label, "isWide": block.columns.count > Self.narrowColumns,
            "caption": block.title.isEmpty && map.blocks.count > 1
              ? "Beside the layers" : block.title,
            "rowsName": block.title.isEmpty ? "matrix" : "layer",
            "columns": block.columns.map { ["parts": Self.parts($0)] },
            "rows": block.rows.map { row in
              [
                "title": row.title,
                "cells": row.cells.map {
                  ["cell": cell($0, in: column, isWide: block.columns.count > Self.narrowColumns)]
                },
              ]
            },
          ] as [String: Any]
        }
      ]
      if report.subjects.count > 1 { entry["heading"] = headings[column]["heading"] }
      return entry
    }
  }

  /// A cell of a map: a link to the matrix, with all its figures as its name.
  private func cell(_ index: Int?, in column: Int, isWide: Bool) -> String {
    guard let index, let matrix = figures[column][TensorName(names[index])] else { return "<td></td>" }
    let target = isDetailed(index) ? "#m\(index)" : "#t\(column)-\(index)"
    let ratio = PageStyle.step(matrix.ratio)
    let error = PageStyle.step(largestError > 0 ? (matrix.error ?? 0) / largestError : 0)
    let kind = matrix.state == .cores ? "r\(ratio) e\(error)" : "dense"
    let texts =
      switch matrix.state {
      case _ where isWide: ""
      case .cores: "<b>\(fixed(matrix.ratio, 2))</b><i>\(small(matrix.error))</i>"
      case .dense: "dense"
      case .tied: "tied"
      }
    let name = SVG.escape(line(of: matrix, named: true))
    return "<td><a class=\"cell \(kind)\" href=\(target) aria-label=\"\(name)\">\(texts)</a></td>"
  }

  /// A name in parts that may stand on lines of their own.
  private static func parts(_ name: String) -> [String] {
    var parts: [String] = []
    for character in name {
      if parts.isEmpty || parts.last?.last.map({ "./_".contains($0) }) == true { parts.append("") }
      parts[parts.count - 1].append(character)
    }
    return parts
  }

  private func isDetailed(_ index: Int) -> Bool {
    if detailed.count == names.count { return true }
    var (low, high) = (0, detailed.count)
    while low < high {
      let middle = (low + high) / 2
      if detailed[middle] < index { low = middle + 1 } else { high = middle }
    }
    return low < detailed.count && detailed[low] == index
  }

  /// The figures of a matrix in a line.
  func line(of matrix: MatrixFigures, named: Bool) -> String {
    var parts =
      named ? [matrix.name, matrix.sizeText] : [matrix.sizeText]
    switch matrix.state {
    case .dense: parts.append("dense")
    case .tied(let other): parts.append("the same as \(other)")
    case .cores:
      parts.append("ratio \(fixed(matrix.ratio, 4))")
      if let error = matrix.metricError { parts.append("error in the metric \(small(error))") }
      if let error = matrix.relativeError { parts.append("error \(small(error))") }
      if matrix.chains.count == 1 { parts.append("bonds \(list(matrix.chains[0].bonds))") }
    }
    return parts.joined(separator: ", ")
  }

  private func table(_ column: Int) -> [String: Any] {
    let subject = report.subjects[column]
    // What no matrix has takes no room.
    let columns = FigureColumn.all.filter { column in subject.matrices.contains { column.value($0) != nil } }
    var rows = ""
    for (index, name) in names.enumerated() {
      guard let matrix = figures[column][TensorName(name)] else { continue }
      rows += "<tr id=t\(column)-\(index)><th scope=row>\(SVG.escape(name))</th>"
      for column in columns {
        rows += "<td\(column.isNumber ? " class=n" : "")>\(SVG.escape(column.value(matrix) ?? "–"))</td>"
      }
      rows += "</tr>\n"
    }
    let title = report.subjects.count == 1 ? "" : " of \(subject.label)"
    return [
      "summary": "\(subject.matrices.count) matrices\(title)", "rows": rows,
      "columns": columns.map { ["title": $0.title, "isNumber": $0.isNumber] as [String: Any] },
    ]
  }
}
