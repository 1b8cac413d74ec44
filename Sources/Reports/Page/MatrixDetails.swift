import Checkpoints
import Squeezing
import TensorNetworks

/// The matrices that are shown in full: the chain, what it loses at every size, its spectra and entropies.
struct MatrixDetails {
  private let page: ReportPage
  private let profiles: [TensorName: LayerProfile]
  private let settings: CurveSettings

  /// So many operators of one tensor are drawn.
  private static let chainLimit = 2

  init(_ page: ReportPage) {
    self.page = page
    let profile = page.report.profile
    profiles = Dictionary(
      (profile?.network.layers ?? []).map { (TensorName($0.name), $0) },
      uniquingKeysWith: { first, _ in first })
    settings = page.curveSettings
  }

  var note: String {
    let all = page.names.count
    let shown =
      page.detailed.count == all
      ? "All \(all) matrices, a layer at a time."
      : "\(page.detailed.count) of \(all) matrices: "
        + (page.report.chosen.isEmpty ? "those that lose most." : "those that --matrix asks for.")
    return shown + (page.report.profile == nil ? " " + page.report.texts.withoutProfile : "")
  }

  /// The matrices, those of a layer together.
  func groups() -> [[String: Any]] {
    let detailed = Set(page.detailed)
    return page.map.blocks.flatMap { block -> [[String: Any]] in
      let rows: [(title: String, members: [Int])] =
        block.title.isEmpty
        ? [
          (
            page.map.blocks.count > 1 ? "Beside the layers" : "Matrices",
            block.rows.flatMap { $0.cells.compactMap(\.self) }
          )
        ]
        : block.rows.map { ($0.title, $0.cells.compactMap(\.self)) }
      return rows.compactMap { title, members in
        let shown = members.filter(detailed.contains)
        guard !shown.isEmpty else { return nil }
        return [
          "title": title, "count": shown.count == 1 ? "1 matrix" : "\(shown.count) matrices",
          "matrices": shown.map(detail),
        ]
      }
    }
  }

  private func detail(_ index: Int) -> [String: Any] {
    let name = page.names[index]
    let columns = page.figures.map { $0[TensorName(name)] }
    let matrix = columns.compactMap(\.self).first
    let profile = profiles[TensorName(name)]
    var result: [String: Any] = [
      "name": name, "index": "\(index)",
      "line": columns.count == 1
        ? matrix.map { page.line(of: $0, named: false) } ?? ""
        : matrix.map { $0.sizeText } ?? "",
      "chains": chains(of: columns), "figures": figures(of: columns),
      "pictures": profile.map { spectra(of: $0, columns) + entropies(columns) }
        ?? entropies(columns),
    ]
    if let errors = errors(of: profile, columns, elements: matrix?.elements ?? 1) {
      result["errors"] = errors
    }
    return result
  }

  private func chains(of columns: [MatrixFigures?]) -> [[String: Any]] {
    zip(page.report.signs, columns).flatMap { sign, matrix -> [[String: Any]] in
      let chains = matrix?.chains ?? []
      return chains.prefix(Self.chainLimit).enumerated().map { place, chain in
        var caption = sign.isEmpty ? "" : "\(sign): "
        caption += "\(chain.shape.siteCount) cores, \(chain.gauge)"
        if !chain.encodings.isEmpty { caption += ", \(chain.encodings)" }
        if chain.hasBases { caption += ", between bases that other matrices may share" }
        if let range = chain.range {
          caption += "; the matrix is \(range) of the operator \(chain.name)"
        }
        if chains.count > 1 { caption += "; operator \(place + 1) of \(chains.count)" }
        return [
          "picture": ChainPicture(shape: chain.shape, bonds: chain.bonds).svg, "caption": caption,
        ]
      }
    }
  }

  private func figures(of columns: [MatrixFigures?]) -> [[String: Any]] {
    func row(_ what: String, _ value: (MatrixFigures) -> String?) -> [String: Any]? {
      let values = columns.map { $0.flatMap(value) }
      guard values.contains(where: { $0 != nil }) else { return nil }
      return ["what": what, "values": values.map { ["text": $0 ?? "–"] }]
    }
    func ofChain(_ value: @escaping (MatrixFigures.Chain) -> String) -> (MatrixFigures) -> String? {
      { $0.chains.count == 1 ? value($0.chains[0]) : nil }
    }
    return [
      row("stored as") { matrix in
        switch matrix.state {
        case .dense: "dense"
        case .tied(let other): "the same as \(other)"
        case .cores: matrix.chains.count > 1 ? "\(matrix.chains.count) operators" : "cores"
        }
      },
      row("numbers") { "\(grouped($0.stored)) of \(grouped($0.elements))" },
      row("ratio") { fixed($0.ratio, 4) },
      row("bonds", ofChain { "\(list($0.bonds)) of \(list($0.shape.fullBonds))" }),
      row("error in the metric") { $0.metricError.map { small($0) } },
      row("error") { $0.relativeError.map { small($0) } },
      row("SVD of the same size") { $0.svdError.map { small($0) } },
      row("entropies") { $0.entropies.map { $0.map { fixed($0, 4) }.joined(separator: " ") } },
      row("norm") { $0.norm.map { fixed($0, 4) } },
    ].compactMap(\.self)
  }

  private func errors(of profile: LayerProfile?, _ columns: [MatrixFigures?], elements: Int)
    -> [String: Any]?
  {
    let curves = profile?.errorCurves(settings)
    let isInMetric =
      profile.map { $0.metricSingularValues != nil } ?? columns.contains { $0?.metricError != nil }
    let chosen = zip(page.report.signs, columns).compactMap {
      sign, matrix -> (String, Double, Double)? in
      guard let matrix, matrix.state == .cores,
        let error = isInMetric ? matrix.metricError : matrix.relativeError
      else { return nil }
      return (sign, matrix.stored, error)
    }
    guard curves != nil || !chosen.isEmpty else { return nil }
    let hasSVD = isInMetric || curves?.lowRank.isEmpty == false
    let plain =
      hasSVD
      ? []
      : columns.compactMap { matrix in
        matrix.flatMap { own in own.svdError.map { (own.stored, $0) } }
      }
    let picture = ErrorPicture(elements: elements, curves: curves, chosen: chosen, plainSVD: plain)
    var caption = "Error\(isInMetric ? " in the metric" : "") against stored numbers."
    if let curves {
      if !curves.chain.isEmpty { caption += "<span class=\"key\"></span>chains" }
      if !curves.lowRank.isEmpty { caption += "<span class=\"key low\"></span>low rank" }
      caption += "<span class=\"key best\"></span>the hull that a plan follows"
    }
    if !plain.isEmpty { caption += " A cross is truncated SVD of the same size." }
    return ["picture": picture.svg, "caption": caption]
  }

  private func spectra(of profile: LayerProfile, _ columns: [MatrixFigures?]) -> [[String: Any]] {
    /// What the columns keep at a bond of a chain of this shape.
    func cuts(_ isMeant: (MatrixFigures.Chain) -> Bool, bond: Int) -> [(sign: String, kept: Int)] {
      zip(page.report.signs, columns).compactMap { sign, matrix in
        guard let chain = matrix?.chains.first, matrix?.chains.count == 1, isMeant(chain),
          bond < chain.bonds.count
        else { return nil }
        return (sign, chain.bonds[bond])
      }
    }
    func picture(
      _ title: String, _ values: [Double], _ cuts: [(sign: String, kept: Int)], _ caption: String
    )
      -> [String: Any]
    {
      [
        "picture": SpectrumPicture(title: title, values: values, cuts: cuts).svg,
        "caption": caption,
      ]
    }
    let kept = "filled: kept"
    var result: [[String: Any]] = []
    for (spectra, place) in [(profile.basisSpectra, "in its bases"), (profile.spectra, "")] {
      guard let spectra else { continue }
      for (bond, values) in spectra.spectra.enumerated() {
        let own = cuts({ $0.shape == profile.shape && $0.hasBases != place.isEmpty }, bond: bond)
        let title = "bond \(bond + 1)\(place.isEmpty ? "" : " ")\(place)"
        result.append(
          picture(
            title, values, own,
            "Singular values at bond \(bond + 1)\(own.isEmpty ? "" : ", " + kept)"))
      }
    }
    for (values, title) in [
      (profile.metricSingularValues, "in the metric"), (profile.singularValues, "of the matrix"),
    ] {
      guard let values else { continue }
      let own = cuts({ $0.shape.isFactored && $0.range == nil }, bond: 0)
      result.append(
        picture(title, values, own, "Singular values \(title)\(own.isEmpty ? "" : ", " + kept)"))
    }
    return result
  }

  private func entropies(_ columns: [MatrixFigures?]) -> [[String: Any]] {
    // Of the source: the same for all columns of one shape.
    var shapes: Set<MPOShape> = []
    return columns.compactMap { matrix in
      guard let matrix, matrix.chains.count == 1, let entropies = matrix.entropies,
        shapes.insert(matrix.chains[0].shape).inserted,
        entropies.count == matrix.chains[0].shape.siteCount - 1
      else { return nil }
      return [
        "picture": EntropyPicture(entropies: entropies, fullBonds: matrix.chains[0].shape.fullBonds)
          .svg,
        "caption": "Entanglement entropies in nats; outlined: the largest that the bond can have",
      ]
    }
  }
}
