/// The head of a card: what stands between its first two lines of three dashes.
struct FrontMatter {
  /// The members that say what a model comes from and what may be done with it, as they were written.
  let kept: [String]

  private static let names = ["base_model", "license", "license_name", "license_link", "language"]

  init(of card: String?) {
    var lines = (card ?? "").split(separator: "\n", omittingEmptySubsequences: false)[...]
      .map { $0.hasSuffix("\r") ? $0.dropLast() : $0 }[...]
    guard lines.popFirst() == "---", let end = lines.firstIndex(of: "---") else {
      kept = []
      return
    }
    var kept: [String] = []
    var isKept = false
    for line in lines[..<end] {
      // A member goes on in lines that are indented, or are items of a list.
      if let first = line.first, !first.isWhitespace, first != "-", first != "#" {
        isKept = Self.names.contains { line.hasPrefix($0 + ":") }
      }
      if isKept { kept.append(String(line)) }
    }
    self.kept = kept
  }

  var text: String { kept.isEmpty ? "" : "---\n" + kept.map { $0 + "\n" }.joined() + "---\n\n" }
}
