import Glibc

/// Writes a new file and waits until it is on the disk.
package func writeFile(_ bytes: UnsafeRawBufferPointer, to path: String) throws {
  let file = try OutputFile(path: path, byteCount: bytes.count)
  try file.write(bytes, at: 0)
  try file.synchronize()
}

/// Copies `name` (which may have folders in it) from one folder to another, where it must not be yet.
package func copyCompanion(_ name: String, from source: String, to target: String) throws {
  var folder = target
  for part in name.split(separator: "/").dropLast() {
    folder += "/" + part
    if mkdir(folder, 0o777) != 0, errno != EEXIST { throw CheckpointError.system(folder, "create it", errno) }
  }
  let file = try MappedFile(path: source + "/" + name)
  try file.withBytes(in: 0..<file.byteCount) { try writeFile($0, to: target + "/" + name) }
}
