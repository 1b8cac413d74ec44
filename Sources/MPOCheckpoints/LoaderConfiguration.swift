import Checkpoints
import Files
import FoundationEssentials

/// The `config.json` of a converted model folder: a member tells libraries that load model folders, transformers above all,
/// that the weights are an MPO checkpoint.
///
/// It is the quantisation method of the Python package `mpo_checkpoint`. A program without it finds no weights, as they
/// have a name of their own, and says so.
package enum LoaderConfiguration {
  package static let fileName = "config.json"
  private static let member = "quantization_config"
  private static let method = "mpo"
  private static let codeMember = "auto_map"
  private static let code = "mpo_remote_code.MPOAutoConfig"

  /// The text with the member in front, if it is the configuration of a model: an object with `model_type`.
  ///
  /// - Returns: nil for everything else, and for a model that is quantised.
  static func announcing(_ json: UnsafeRawBufferPointer) -> [UInt8]? {
    guard let text = try? Text(json), text.hasModelType, text.methods.isEmpty, text.first != nil else { return nil }
    let announcement =
      "\n  \"\(member)\": {\"quant_method\": \"\(method)\", \"format_version\": \"\(CheckpointManifest.currentVersion)\"},"
    return inserted(announcement, into: json, at: text.start)
  }

  /// An announced text that besides names the Python code in the folder; nil for another, and where code is named already.
  static func namingCode(_ json: UnsafeRawBufferPointer) -> [UInt8]? {
    guard let text = try? Text(json), text.methods.contains(where: \.isOwn), text.codes.isEmpty else { return nil }
    return inserted("\n  \"\(codeMember)\": {\"AutoConfig\": \"\(code)\"},", into: json, at: text.start)
  }

  /// Whether the text names Python code.
  static func hasCode(_ json: UnsafeRawBufferPointer) -> Bool {
    (try? Text(json))?.codes.isEmpty == false
  }

  /// The text without the members that `announcing`, `namingCode` or the Python package put there, byte for byte; nil where
  /// it does not announce the format.
  package static func withoutAnnouncement(_ json: UnsafeRawBufferPointer) -> [UInt8]? {
    guard let text = try? Text(json), case let own = text.methods.filter(\.isOwn), own.count == 1 else { return nil }
    let unannounced = Array(json[..<own[0].range.lowerBound]) + Array(json[own[0].range.upperBound...])
    return unannounced.withUnsafeBytes { json in
      guard let text = try? Text(json), let code = text.codes.first, code.isOwn, text.codes.count == 1 else {
        return unannounced
      }
      return Array(json[..<code.range.lowerBound]) + Array(json[code.range.upperBound...])
    }
  }

  private static func inserted(_ text: String, into json: UnsafeRawBufferPointer, at offset: Int) -> [UInt8] {
    Array(json[..<offset]) + Array(text.utf8) + Array(json[offset...])
  }

  /// Whether an object that `reader` is at, the value of a member such as `quantization_config`, is of this format.
  package static func isOwn(_ reader: inout JSONReader) throws -> Bool {
    var isOwn = false
    try reader.readObject { reader, name in
      if name == "quant_method", try reader.nextKind() == .string {
        isOwn = try reader.readString() == method
      } else {
        try reader.skipValue()
      }
    }
    return isOwn
  }

  /// Whether an object that `reader` is at, the value of `auto_map`, names the code of `RemoteCode`.
  private static func namesOwnCode(_ reader: inout JSONReader) throws -> Bool {
    var isOwn = false
    try reader.readObject { reader, name in
      if name == "AutoConfig", try reader.nextKind() == .string {
        isOwn = try reader.readString() == code
      } else {
        try reader.skipValue()
      }
    }
    return isOwn
  }

  /// Where the members are.
  private struct Text {
    /// Behind the brace that opens the object.
    var start = 0
    var hasModelType = false
    /// The name of the first member; nil where there is none.
    var first: String?
    /// Members that say how weights are quantised: the bytes to leave out with one, a comma among them.
    var methods: [(range: Range<Int>, isOwn: Bool)] = []
    /// Members that name Python code.
    var codes: [(range: Range<Int>, isOwn: Bool)] = []

    init(_ json: UnsafeRawBufferPointer) throws {
      var result = self
      try JSONReader.read(json) { reader in
        guard try reader.nextKind() == .object else { throw JSONError(offset: 0, reason: "it is not an object") }
        result.start = reader.offset + 1
        var end = result.start
        try reader.readObject { reader, name in
          let isMethod = ["quantization", LoaderConfiguration.member, "compression_config"].contains(name)
          let isCode = name == LoaderConfiguration.codeMember
          let kind = try reader.nextKind()
          if isMethod || isCode, kind == .object {
            let isOwn =
              try isCode ? LoaderConfiguration.namesOwnCode(&reader) : LoaderConfiguration.isOwn(&reader)
            var upper = reader.offset
            if result.first == nil {
              // The comma behind it goes with the first member, the one before it with every other.
              var next = upper
              while next < json.count, [0x20, 0x09, 0x0A, 0x0D].contains(json[next]) { next += 1 }
              if next < json.count, json[next] == UInt8(ascii: ",") { upper = next + 1 }
            }
            if isCode { result.codes.append((end..<upper, isOwn)) } else { result.methods.append((end..<upper, isOwn)) }
          } else {
            if name == "model_type", kind == .string { result.hasModelType = true }
            try reader.skipValue()
          }
          result.first = result.first ?? name
          end = reader.offset
        }
      }
      self = result
    }
  }
}

/// Copies a companion, `config.json` with what `LoaderConfiguration` adds.
func copyAnnouncedCompanion(_ companion: Companion, from source: String, to target: String) throws {
  guard companion.storedPath == LoaderConfiguration.fileName else {
    return try copyCompanion(companion.path, from: source, to: target, as: companion.storedPath)
  }
  let file = try MappedFile(path: source + "/" + companion.path)
  let announced = try file.withBytes(in: 0..<file.byteCount) { LoaderConfiguration.announcing($0) }
  guard let announced else {
    return try copyCompanion(companion.path, from: source, to: target, as: companion.storedPath)
  }
  try announced.withUnsafeBytes { try writeFile($0, to: target + "/" + companion.storedPath) }
}

/// Copies a companion of an MPO checkpoint into a model folder, `config.json` without what `LoaderConfiguration` added.
package func restoreCompanion(_ storedPath: String, from source: String, to target: String) throws {
  let path = Companion.modelPath(ofStored: storedPath)
  if storedPath == LoaderConfiguration.fileName {
    let file = try MappedFile(path: source + "/" + storedPath)
    if let plain = try file.withBytes(in: 0..<file.byteCount, { LoaderConfiguration.withoutAnnouncement($0) }) {
      return try plain.withUnsafeBytes { try writeFile($0, to: target + "/" + path) }
    }
  }
  try copyCompanion(storedPath, from: source, to: target, as: path)
}
