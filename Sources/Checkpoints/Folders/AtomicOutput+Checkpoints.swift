import Files

extension AtomicOutput {
  /// Begins an output that may replace a file, and of folders an MPO checkpoint or a model folder.
  ///
  /// - Throws: `FileError.outputExists`, `.outputNotReplaceable`, or `.io` where the folder around it is missing or not
  ///   writable.
  public convenience init(at path: String, kind: Kind, replacing: Bool) throws {
    try self.init(at: path, kind: kind, replacing: replacing) { path, names in
      let isModel = names.contains { $0.hasPrefix("model") && $0.hasSuffix(".safetensors") }
      guard !isModel, !names.contains("manifest.json") || !isMPOManifest(at: path + "/manifest.json") else {
        return nil
      }
      return "it is a folder, but neither an MPO checkpoint nor a model folder"
    }
  }
}

/// Whether a file is the manifest of an MPO checkpoint: a JSON object whose `format` is a name that starts with `mpo`.
package func isMPOManifest(at path: String) -> Bool {
  var isManifest = false
  do {
    let file = try MappedFile(path: path)
    guard file.byteCount <= SafetensorsFile.maximumHeaderLength else { return false }
    try file.withBytes(in: 0..<file.byteCount) { bytes in
      try JSONReader.read(bytes) { reader in
        try reader.readObject { reader, name in
          if name == "format", try reader.nextKind() == .string {
            isManifest = try reader.readString().hasPrefix("mpo")
          } else {
            try reader.skipValue()
          }
        }
      }
    }
  } catch {
    // What is not valid JSON to its end may still have said what it is: a damaged manifest.
    return isManifest
  }
  return isManifest
}
