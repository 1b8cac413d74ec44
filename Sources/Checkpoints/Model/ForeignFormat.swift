import Files

/// Formats that are no dense checkpoints, or none that is read here, but are often taken for one.
enum ForeignFormat {
  case empty
  /// A pickle, or a zip archive around one, as `torch.save` writes them.
  case pickle
  /// Some other zip archive.
  case zip
  case json
  case gguf
  case numpy
  /// What Git leaves in place of a file that Git LFS keeps.
  case lfsPointer

  /// Looks at the first bytes of a file; `nil` when they say nothing.
  init?(head: [UInt8]) {
    func starts(_ signature: some Sequence<UInt8>) -> Bool { head.starts(with: signature) }
    if head.isEmpty {
      self = .empty
    } else if starts(ZipSignature.bytes) {
      let name = ZipSignature.firstName(head)
      self = name.hasSuffix("data.pkl") || name.contains("/data/") || name.hasSuffix("/version") ? .pickle : .zip
    } else if head.count > 2, head[0] == 0x80, (2...5).contains(head[1]) {
      self = .pickle
    } else if starts("GGUF".utf8) {
      self = .gguf
    } else if starts([0x93] + "NUMPY".utf8) {
      self = .numpy
    } else if starts("version https://git-lfs".utf8) {
      self = .lfsPointer
    } else if head.trimmingPrefix(JSONReader.byteOrderMark).first(where: { ![0x20, 0x0A, 0x0D, 0x09].contains($0) })
      == UInt8(ascii: "{")
    {
      self = .json
    } else {
      return nil
    }
  }

  /// The first bytes of a file, as many as are looked at.
  static func head(of file: MappedFile) throws -> [UInt8] {
    try file.withBytes(in: 0..<min(file.byteCount, 512)) { Array($0) }
  }

  /// Refuses a file that is something else than what was expected.
  ///
  /// - Parameters:
  ///   - name: What messages call it; its path where it is nil.
  ///   - expected: What it may be.
  /// - Throws: `CheckpointError.notACheckpoint`, which says what it is and what to do.
  static func refuse(_ file: MappedFile, name: String? = nil, except expected: ForeignFormat? = nil) throws {
    guard let foreign = try ForeignFormat(head: head(of: file)), foreign != expected else { return }
    throw CheckpointError.notACheckpoint(path: name ?? file.path, reason: foreign.refusal)
  }

  /// What the file is, and what to do.
  var refusal: String {
    switch self {
    case .empty: "the file is empty"
    case .pickle: "is a pickle as torch.save writes it; \(Self.pickleRemedy)"
    case .zip: "is a zip archive but not a Keras model"
    case .json: "is a JSON file; pass a .safetensors or .h5 file, a *.safetensors.index.json or a folder"
    case .gguf: "is a GGUF file, which holds quantised weights; pass the original safetensors"
    case .numpy: "is a NumPy array; save it with safetensors.numpy.save_file first"
    case .lfsPointer: "is a Git LFS pointer and not the file itself; run 'git lfs pull'"
    }
  }

  static let pickleRemedy =
    "convert it to safetensors first, with save_pretrained(…, safe_serialization=True) or safetensors.torch.save_model"
}

/// The beginning of a zip archive.
enum ZipSignature {
  static let bytes = Array("PK\u{3}\u{4}".utf8)

  /// The name of the first entry; empty where `head` is too short.
  static func firstName(_ head: [UInt8]) -> String {
    guard head.count >= 30 else { return "" }
    let length = Int(head[26]) | Int(head[27]) << 8
    return String(decoding: head[30..<min(30 + length, head.count)], as: UTF8.self)
  }
}
