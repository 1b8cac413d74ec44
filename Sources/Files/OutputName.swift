/// An output's path taken apart, and the names of its temporaries.
struct OutputName {
  /// The path without trailing slashes.
  let path: String
  let parent: String
  private let name: String

  private static let ending = ".partial"
  private static let digitCount = 16

  init(_ given: String) throws(FileError) {
    path = withoutTrailingSlashes(given)
    parent = parentFolder(of: path)
    name = path == "/" ? "" : pathComponents(of: path).last ?? ""
    guard !["", ".", ".."].contains(name), !path.utf8.contains(0) else {
      throw FileError.io(file: given, operation: "create it", reason: "an output can't have this name")
    }
  }

  /// A new path of the form `.<name>.<random>.partial`.
  func temporaryPath() -> String {
    let digits = String(UInt64.random(in: 0...UInt64.max), radix: 16)
    let random = String(repeating: "0", count: OutputName.digitCount - digits.count) + digits
    return "\(parent == "/" ? "" : parent)/.\(name).\(random)\(OutputName.ending)"
  }

  /// The temporary that a name is made from by adding a dot and six letters, as libzip does; `nil` for other names.
  func temporary(besideWhich sibling: String) -> String? {
    guard sibling.utf8.count > 7, sibling.utf8.suffix(7).first == UInt8(ascii: ".") else { return nil }
    let temporary = String(decoding: sibling.utf8.dropLast(7), as: UTF8.self)
    return isTemporary(temporary) ? temporary : nil
  }

  func isTemporary(_ sibling: String) -> Bool {
    let prefix = ".\(name).".utf8
    let ending = OutputName.ending.utf8
    guard sibling.utf8.starts(with: prefix), sibling.utf8.suffix(ending.count).elementsEqual(ending) else {
      return false
    }
    let random = sibling.utf8.dropFirst(prefix.count).dropLast(ending.count)
    return random.count == OutputName.digitCount
      && random.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
  }
}
