import Glibc

/// What the first bytes of a file say it is.
enum FileSignature: Equatable {
  case empty
  case safetensors
  case hdf5
  /// A zip archive whose first entry belongs to a Keras model.
  case kerasArchive
  /// A pickle, or a zip archive around one, as `torch.save` writes them.
  case pickle
  /// Some other zip archive.
  case zip
  case json
  case gguf
  case numpy
  /// What Git leaves in place of a file that Git LFS keeps.
  case lfsPointer
  case unknown

  /// Looks into the regular file at `path`.
  init(ofFileAt path: String) throws {
    let file = try MappedFile(path: path)
    let size = file.byteCount
    guard size > 0 else {
      self = .empty
      return
    }
    let found = try file.withBytes(in: 0..<min(size, 512)) { FileSignature(head: $0) }
    if found == .unknown, try FileSignature.hasUserBlock(file) {
      self = .hdf5
    } else {
      self = found
    }
  }

  private init(head: UnsafeRawBufferPointer) {
    func starts(_ signature: [UInt8]) -> Bool { head.starts(with: signature) }
    // A header length below 2^32 and a brace: no other format here has both.
    if head.count > 8, head[4..<8].allSatisfy({ $0 == 0 }), head[8] == UInt8(ascii: "{") {
      self = .safetensors
    } else if starts(FileSignature.hdf5Bytes) {
      self = .hdf5
    } else if starts(Array("PK\u{3}\u{4}".utf8)) {
      self = FileSignature(zipHead: head)
    } else if head.count > 2, head[0] == 0x80, (2...5).contains(head[1]) {
      self = .pickle
    } else if starts(Array("GGUF".utf8)) {
      self = .gguf
    } else if starts([0x93] + Array("NUMPY".utf8)) {
      self = .numpy
    } else if starts(Array("version https://git-lfs".utf8)) {
      self = .lfsPointer
    } else if head.first(where: { ![0x20, 0x0A, 0x0D, 0x09].contains($0) }) == UInt8(ascii: "{") {
      self = .json
    } else {
      self = .unknown
    }
  }

  /// Tells zip archives apart by the name of their first entry.
  private init(zipHead head: UnsafeRawBufferPointer) {
    guard head.count >= 30 else {
      self = .zip
      return
    }
    let length = Int(head[26]) | Int(head[27]) << 8
    let name = String(decoding: head[30..<min(30 + length, head.count)], as: UTF8.self)
    if name.hasSuffix("data.pkl") || name.contains("/data/") || name.hasSuffix("/version") {
      self = .pickle
    } else if ["metadata.json", "config.json", "model.weights.h5"].contains(name) {
      self = .kerasArchive
    } else {
      self = .zip
    }
  }

  /// Whether an HDF5 superblock stands behind a user block, at 512 bytes or a power of two times that.
  private static func hasUserBlock(_ file: MappedFile) throws -> Bool {
    var offset = 512
    while offset <= file.byteCount - 8 {
      if try file.withBytes(in: offset..<offset + 8, { $0.elementsEqual(hdf5Bytes) }) { return true }
      offset *= 2
    }
    return false
  }

  private static let hdf5Bytes: [UInt8] = [0x89, 0x48, 0x44, 0x46, 0x0D, 0x0A, 0x1A, 0x0A]
}
