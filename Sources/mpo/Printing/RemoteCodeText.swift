import MPOCheckpoints

/// The text of `mpo_remote_code.py`: what transformers runs, and the sources of the Python package as this tool was built with
/// them.
enum RemoteCodeText {
  static var text: String {
    var result = PythonPackage.remoteCode
    guard let place = result.firstRange(of: "SOURCES: \"dict[str, str]\" = {}\n") else { return result }
    let entries = PythonPackage.files.map { file in
      let lines = file.text.split(separator: "\n", omittingEmptySubsequences: false).map { "|\($0)" }
      return "    \"\(module(at: file.path))\": r'''\(lines.joined(separator: "\n"))''',\n"
    }
    result.replaceSubrange(place, with: "SOURCES: \"dict[str, str]\" = {\n\(entries.joined())}\n")
    return result
  }

  /// The name of a module: `a/b.py` is `a.b`, `a/__init__.py` is `a`.
  private static func module(at path: String) -> String {
    var parts = path.dropLast(".py".count).split(separator: "/")
    if parts.last == "__init__" { parts.removeLast() }
    return parts.joined(separator: ".")
  }
}
