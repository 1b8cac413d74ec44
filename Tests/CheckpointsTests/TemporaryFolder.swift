import Foundation
import Testing

@testable import Checkpoints

/// A folder that is removed when the test is over.
final class TemporaryFolder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "/mpo-tests-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes a file and gives its path; folders on the way are created.
  @discardableResult
  func write(_ bytes: some Sequence<UInt8>, to name: String) throws -> String {
    let file = path + "/" + name
    let parent = (file as NSString).deletingLastPathComponent
    try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    return file
  }

  @discardableResult
  func write(_ text: String, to name: String) throws -> String { try write(text.utf8, to: name) }

  func link(_ name: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(atPath: path + "/" + name, withDestinationPath: target)
  }

  /// The names in the folder, hidden ones too, in order.
  var names: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }
  }
}

/// The folder of the committed fixtures.
let fixtures =
  URL(fileURLWithPath: #filePath)
  .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path + "/fixtures"

/// The bytes of a safetensors file with this header and `dataByteCount` bytes behind it.
func safetensorsBytes(header: String, dataByteCount: Int = 0) -> [UInt8] {
  safetensorsBytes(header: Array(header.utf8), dataByteCount: dataByteCount)
}

func safetensorsBytes(header: [UInt8], dataByteCount: Int = 0, length: UInt64? = nil) -> [UInt8] {
  withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) { Array($0) } + header
    + (0..<dataByteCount).map { UInt8(truncatingIfNeeded: $0) }
}

/// The message of the error that `body` throws; `nil` when it throws none.
func message<Result>(of body: () throws -> Result) -> String? {
  do {
    _ = try body()
    return nil
  } catch {
    return "\(error)"
  }
}

extension DenseCheckpoint {
  /// The tensor's bytes as an array.
  func bytes(of name: String) throws -> [UInt8] {
    let found = tensor(named: name)
    let tensor = try #require(found)
    return try withBytes(of: tensor) { Array($0) }
  }
}
