import Conversion
import Files
import MPOCheckpoints
import Recipes

/// The card of an MPO checkpoint: what it is, what it cost, and how to load it, as Markdown. The same manifest gives the same
/// card.
public struct ModelCard: Sendable {
  private let manifest: CheckpointManifest
  private let frontMatter: FrontMatter
  private let command: String?
  private let loading: [LoadingStep]

  /// - Parameters:
  ///   - manifest: that of the checkpoint.
  ///   - source: the card of the source, whose front matter says what the model is based on.
  ///   - command: that makes the checkpoint; nil where none can be given.
  ///   - loading: how to load it.
  public init(
    _ manifest: CheckpointManifest, source: String?, command: String?,
    loading: [LoadingStep]
  ) {
    self.manifest = manifest
    frontMatter = FrontMatter(of: source)
    self.command = command
    self.loading = loading
  }

  /// The card, Markdown with YAML in front.
  public var text: String {
    frontMatter.text + """
      # Matrix product operators of \(sources)

      An MPO checkpoint, written by \(Self.inline(manifest.generator)): weight matrices are stored as chains of small tensors
      (matrix product operators; a chain of two tensors is a low-rank factorisation), with sizes chosen over the whole network
      ([arXiv 2106.02205](https://arxiv.org/abs/2106.02205)). `manifest.json` says what every tensor is made of, and holds the
      recipe of the conversion. This file is not part of the checkpoint.

      \(totals)
      ## Errors by kind of matrix

      \(errors)
      ## How to load it

      \(loading.map { "\($0.title):\n\n```\($0.language)\n\($0.code)\n```\n" }.joined(separator: "\n"))\(recipe)
      """
  }

  private var sources: String {
    let files = manifest.source?.files ?? []
    guard let first = files.first else { return "a model" }
    return Self.inline(first.file) + (files.count > 1 ? " and \(files.count - 1) more files" : "")
  }

  private var totals: String {
    let totals = manifest.totals
    var rows = [
      ("parameters", "\(grouped(totals.parametersBefore)) → \(grouped(totals.parametersStored))"),
      ("ratio", fixed(totals.ratio, 4)),
      ("bytes", "\(bytes(totals.bytesBefore)) → \(bytes(totals.bytesStored))"),
      ("trainable: auxiliary cores and vectors", grouped(totals.parametersTrainable)),
    ]
    let inMetric = manifest.contents.tensors.compactMap { $0.blocks?.metricRelativeError }
    if !inMetric.isEmpty {
      rows.append(("error in the metric, root mean square", small(Self.rootMeanSquare(inMetric))))
    }
    rows.append(("error of the weights (Frobenius, relative)", small(totals.relativeError)))
    for file in (manifest.source?.files ?? []).prefix(20) {
      rows.append(("made from", "\(Self.inline(file.file)), SHA-256 `\(file.sha256)`"))
    }
    return "| what | |\n|---|---|\n" + rows.map { "| \($0.0) | \($0.1) |\n" }.joined()
  }

  private var errors: String {
    let subject = ReportSubject(manifest, path: "", ModelConfiguration())
    let cores = subject.matrices.filter { $0.state == .cores }
    guard !cores.isEmpty else { return "No matrix is stored as cores.\n" }
    let kinds = NetworkMap(cores.map(\.name)).kinds
    var names: [String] = []
    var members: [String: [MatrixFigures]] = [:]
    for (kind, matrix) in zip(kinds, cores) {
      if members[kind] == nil { names.append(kind) }
      members[kind, default: []].append(matrix)
    }
    let hasMetric = cores.contains { $0.metricError != nil }
    var text = "| matrices | count | ratio |\(hasMetric ? " in metric |" : "") error | largest |\n"
    text += "|---|---|---|\(hasMetric ? "---|" : "")---|---|\n"
    for name in names {
      let own = members[name] ?? []
      let ratio =
        own.reduce(0) { $0 + $1.stored } / Double(max(1, own.reduce(0) { $0 + $1.elements }))
      let inMetric = own.compactMap(\.metricError)
      let metric =
        hasMetric ? " \(inMetric.isEmpty ? "–" : small(Self.rootMeanSquare(inMetric))) |" : ""
      let relative = own.compactMap(\.relativeError)
      let largest = own.max { ($0.error ?? 0) < ($1.error ?? 0) }
      text += "| \(Self.inline(name)) | \(own.count) | \(fixed(ratio, 4)) |\(metric) "
      text +=
        "\(relative.isEmpty ? "–" : small(Self.rootMeanSquare(relative))) | \(small(largest?.error)) |\n"
    }
    return text
      + "\nErrors are relative, root mean square over the matrices of a kind; the largest is that of one matrix"
      + (hasMetric ? ", in the metric of the statistics where it has one.\n" : ".\n")
  }

  private var recipe: String {
    guard let recipe = manifest.conversion, let yaml = try? recipe.yaml() else { return "" }
    let command = command.map { "```sh\n\($0)\n```\n\n" } ?? ""
    return "\n## Recipe\n\n\(command)```yaml\n\(yaml)```\n"
  }

  private static func rootMeanSquare(_ values: [Double]) -> Double {
    (values.reduce(0) { $0 + $1 * $1 } / Double(max(1, values.count))).squareRoot()
  }

  /// A name as code in a line or a cell of a table, whatever is in it.
  private static func inline(_ name: String) -> String {
    let text = String(escaped(name, limit: 200).map { $0 == "|" ? "¦" : $0 })
    let longest = text.split(whereSeparator: { $0 != "`" }).map(\.count).max() ?? 0
    guard longest > 0 else { return "`\(text)`" }
    let fence = String(repeating: "`", count: longest + 1)
    return "\(fence) \(text) \(fence)"
  }
}
