import Checkpoints
import Files

/// The output of a stage: a file, or standard output for `-`.
struct StageOutput {
  private let file: AtomicOutput?

  init(_ path: String, _ options: OutputOptions, inputs: [String], replacing: Bool = false) throws {
    file = path == "-" ? nil : try options.begin(path, kind: .file, inputs: inputs, replacing: replacing)
  }

  func write(_ content: [UInt8]) throws {
    guard let file else { return try StandardOutput.write(content) }
    try content.withUnsafeBytes { try writeFile($0, to: file.temporaryPath) }
    try file.commit()
  }
}

/// The content of a file, or of standard input for `-`.
func readFile(_ path: String) throws -> [UInt8] {
  if path == "-" { return try readStandardInput() }
  let file = try MappedFile(path: path)
  return try file.withBytes(in: 0..<file.byteCount) { Array($0) }
}
