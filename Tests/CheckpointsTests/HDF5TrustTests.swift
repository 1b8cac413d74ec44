import Foundation
import Glibc
import TestSupport
import Testing

@testable import Checkpoints

@Suite struct HDF5TrustTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: fixtures + "/hdf5/" + name)))
  }

  /// Opens the file and reads all its tensors.
  private func readAll(_ path: String) throws {
    let checkpoint = try HDF5Checkpoint(path: path)
    for tensor in checkpoint.tensors { try checkpoint.withBytes(of: tensor) { _ in } }
  }

  private func failure(of bytes: [UInt8], named name: String = "x.h5") throws -> String? {
    let path = try folder.write(bytes, to: name)
    let reason = message { try readAll(path) }
    if let reason { #expect(!reason.contains("\n") && reason.hasPrefix(path), "\(reason)") }
    return reason
  }

  // MARK: - What leads elsewhere

  @Test(arguments: [
    ("external_link.h5", "the link '/elsewhere' leads to another file"),
    ("external_storage.h5", "tensor 'weight': is stored in an external file"),
    ("virtual.h5", "tensor 'weight': is a virtual dataset"),
    ("unknown_filter.h5", "tensor 'weight': is stored through the filter LZF (32000)"),
    ("huge_chunked.h5", "tensor 'weight': declares 4398046511104 bytes"),
    ("huge_unwritten.h5", "tensor 'weight': declares 4398046511104 bytes"),
  ])
  func `a refused link or dataset is named`(_ name: String, _ reason: String) throws {
    let path = fixtures + "/hdf5/hostile/" + name
    let found = message { try readAll(path) }
    #expect(found?.contains(reason) == true, "\(found ?? "it was read")")
  }

  @Test func `a user-defined link is refused`() throws {
    var file = try bytes("hostile/external_link.h5")
    let place = try #require(file.firstRange(of: Array("elsewhere".utf8)))
    // The link message in front of its name: the kind, 64 for external links, and the length of the name.
    let kind = try #require(file[..<place.lowerBound].lastIndex(of: 64))
    #expect(place.lowerBound - kind <= 3)
    file[kind] = 77
    #expect(try failure(of: file)?.contains("the link '/elsewhere' is of a user-defined kind") == true)
  }

  @Test func `pipes and devices are refused before they are opened`() throws {
    let pipe = folder.path + "/pipe.h5"
    #expect(mkfifo(pipe, 0o600) == 0)
    #expect(message { try HDF5Checkpoint(path: pipe) }?.contains("is a named pipe") == true)
    #expect(message { try HDF5Checkpoint(path: "/dev/zero") }?.contains("is a character device") == true)
    #expect(message { try HDF5Checkpoint(path: folder.path + "/none.h5") }?.contains("no such file") == true)
  }

  // MARK: - What is damaged

  @Test(arguments: [
    "structure.h5", "layouts.h5", "latest.h5", "keras_legacy.h5", "keras3.weights.h5", "references.h5", "dtypes.h5",
  ])
  func `a file that is cut short is an error`(_ name: String) throws {
    let whole = try bytes(name)
    for part in stride(from: 0, to: 64, by: 3) {
      #expect(try failure(of: Array(whole[..<(whole.count * part / 64)])) != nil, "\(part)/64 of it")
    }
    #expect(try failure(of: whole.dropLast()) != nil)
    #expect(try failure(of: whole) == nil)
  }

  @Test func `a damaged superblock is an error`() throws {
    let whole = try bytes("structure.h5")
    for (offset, value) in [(8, 9), (13, 77), (14, 77), (16, 0)] as [(Int, UInt8)] {
      var file = whole
      file[offset] = value
      #expect(try failure(of: file)?.contains("is not a valid HDF5 file") == true, "byte \(offset)")
    }
  }

  @Test func `a damaged node of a tree is an error`() throws {
    for (name, signature) in [("layouts.h5", "TREE"), ("tf_model.h5", "SNOD"), ("tf_model.h5", "HEAP")] {
      var file = try bytes(name)
      var start = 0
      while let place = file[start...].firstRange(of: Array(signature.utf8)) {
        file[place.lowerBound] ^= 0xFF
        start = place.upperBound
      }
      #expect(start > 0)
      #expect(try failure(of: file) != nil, "\(signature) of \(name)")
    }
  }

  @Test func `a damaged object header with a checksum is an error`() throws {
    var file = try bytes("latest.h5")
    let place = try #require(file.firstRange(of: Array("OHDR".utf8)))
    file[place.lowerBound + 12] ^= 0x55
    #expect(try failure(of: file)?.contains("checksum") == true)
  }

  @Test func `a chunk that was changed is found by its checksum`() throws {
    let whole = try bytes("layouts.h5")
    // Elements 32 … 39 of a row are in a chunk of their own in 'fletcher32', which is not compressed.
    let pattern = (16..<32).flatMap { value in withUnsafeBytes(of: Float(value).bitPattern.littleEndian) { Array($0) } }
    var found = 0
    var start = 0
    while let place = whole[start...].firstRange(of: pattern) {
      var file = whole
      file[place.lowerBound + 1] ^= 1
      if let reason = try failure(of: file) {
        #expect(reason.contains("tensor 'fletcher32': can't be read: the checksum of a chunk does not match"))
        found += 1
      }
      start = place.upperBound
    }
    #expect(found == 1)
  }

  @Test func `a chunk that can't be inflated is an error`() throws {
    var file = try bytes("layouts.h5")
    // The start of zlib streams, of the levels that h5py uses.
    for header in [[0x78, 0x5E], [0x78, 0xDA]] as [[UInt8]] {
      var start = 0
      while let place = file[start...].firstRange(of: header) {
        file[place.lowerBound] = 0xFF
        start = place.upperBound
      }
    }
    let checkpoint = try HDF5Checkpoint(path: folder.write(file, to: "x.h5"))
    for (name, reason) in [("gzip", "can't be inflated"), ("shuffle", "can't be inflated"), ("all", "checksum")] {
      #expect(message { try checkpoint.bytes(of: name) }?.contains(reason) == true, "\(name)")
    }
  }

  @Test func `a damaged attribute is an error or no text`() throws {
    let whole = try bytes("structure.h5")
    let place = try #require(whole.firstRange(of: Array("note\0".utf8)))
    for offset in -8..<5 {
      var file = whole
      file[place.lowerBound + offset] = 0xFF
      _ = try failure(of: file)
    }
  }

  // MARK: - Archives

  @Test func `a damaged archive is an error`() throws {
    let whole = try bytes("keras3.keras")
    for part in 1..<16 {
      #expect(try failure(of: Array(whole[..<(whole.count * part / 16)]), named: "x.keras") != nil)
    }
    var file = whole
    // A byte of the weights: the archive's own checksum finds it.
    file[whole.count / 2] ^= 0xFF
    #expect(try failure(of: file, named: "x.keras")?.contains("damaged") == true)
    // The name of the entry, in its own header and in the directory.
    file = whole
    while let place = file.firstRange(of: Array("model.weights.h5".utf8)) { file[place.lowerBound] = UInt8(ascii: "M") }
    #expect(try failure(of: file, named: "x.keras")?.contains("without model.weights.h5") == true)
  }

  @Test func `an archive that claims to hold far more than it stores is refused`() throws {
    var file = try bytes("keras3.keras")
    let entry = try #require(file.lastIndex(of: Array("PK\u{1}\u{2}".utf8)))
    // The size in the directory, of a stored entry that says it is deflated.
    file[entry + 10] = 8
    for index in 24..<28 { file[entry + index] = 0xF0 }
    #expect(try failure(of: file, named: "x.keras") != nil)
  }
}

extension [UInt8] {
  /// Where the last occurrence of `part` starts.
  fileprivate func lastIndex(of part: [UInt8]) -> Int? { ranges(of: part).last?.lowerBound }
}
