import Glibc

/// The parts of a path between slashes, cut at the bytes of slashes whatever follows them.
package func pathComponents(of path: String) -> [String] {
  path.utf8.split(separator: UInt8(ascii: "/")).map { String(decoding: $0, as: UTF8.self) }
}

/// The folder that a path is in, as far as the path says.
package func parentFolder(of path: String) -> String {
  guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
  return slash == path.startIndex ? "/" : String(decoding: path.utf8[..<slash], as: UTF8.self)
}

/// A path without slashes at its end, `/` itself excepted.
package func withoutTrailingSlashes(_ path: String) -> String {
  var bytes = path.utf8[...]
  while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
  return String(decoding: bytes, as: UTF8.self)
}

/// `path` without symbolic links, `.` and `..`.
package func realPath(of path: String) throws(FileError) -> String {
  try FileError.naming(path, "resolve the path") { () throws(SystemError) in try Posix.realPath(path) }
}

/// The names in a folder, in the order of their bytes; those that are not UTF-8 are left out.
package func listFolder(at path: String) throws(FileError) -> [String] {
  try listFolderWithInvalidNames(at: path).names
}

/// The names in a folder, in the order of their bytes, and how many there are besides that are not UTF-8.
package func listFolderWithInvalidNames(at path: String) throws(FileError) -> (names: [String], invalidCount: Int) {
  let all = try FileError.naming(path, "list the folder") { () throws(SystemError) in try Posix.names(in: path) }
  let names = all.compactMap { String(validating: $0.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self) }
  return (names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }, all.count - names.count)
}

/// Flushes everything in a folder, and the folder.
package func flushFolder(at path: String) throws {
  for name in try listFolder(at: path) {
    let inner = path + "/" + name
    switch try FileStatus(at: inner, followingLinks: false)?.kind {
    case .folder: try flushFolder(at: inner)
    case .file: try flush(inner)
    default: continue
    }
  }
  try flush(path)
}

/// Opens a file or a folder and waits until it is on the disk.
package func flush(_ path: String) throws(FileError) {
  try FileError.naming(path, "flush it") { () throws(SystemError) in
    let descriptor = try Posix.open(path, O_RDONLY | O_NOFOLLOW)
    defer { Posix.close(descriptor) }
    try Posix.synchronize(descriptor)
  }
}

/// Waits until the names in the folder around `path` are on the disk. A folder that can't be flushed (some network file
/// systems) is no failure.
package func flushParent(of path: String) {
  guard let parent = try? Posix.open(parentFolder(of: path), O_RDONLY | O_DIRECTORY) else { return }
  defer { Posix.close(parent) }
  try? Posix.synchronize(parent)
}

/// Removes a file, or a folder with all that is in it; links are removed and not followed. What can't be removed stays.
package func removeTree(at path: String) {
  do {
    try Posix.unlink(path)
  } catch {
    if error.code == ENOENT { return }
    if let folder = try? Posix.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) {
      removeContents(of: folder, depth: 0)
      Posix.close(folder)
    }
    try? Posix.removeFolder(path)
  }
}

/// Removes all that is in an open folder.
private func removeContents(of folder: CInt, depth: Int) {
  guard depth < 256, let names = try? Posix.names(in: folder) else { return }
  for name in names {
    do {
      try Posix.unlink(name, in: folder)
    } catch {
      guard let inner = try? Posix.openFolder(name, in: folder) else { continue }
      removeContents(of: inner, depth: depth + 1)
      Posix.close(inner)
      try? Posix.unlink(name, in: folder, isFolder: true)
    }
  }
}
