import CLinux
import Glibc

/// A regular file mapped into memory for reading.
///
/// Pages are given back to the system when a range has been used, so the memory in use is that of the ranges in use
/// and not of the file. Safe to use from several threads: a page that was given back while another thread reads it is
/// simply read again.
///
/// A file that became shorter after it was opened is an error, not a crash, when a range is asked for. What remains is
/// a file that is cut while a range is in use: touching a page behind its new end raises `SIGBUS`, and no check
/// beforehand can exclude it. `reportLostPages` makes that an error message too, at the end of the process.
public final class MappedFile: @unchecked Sendable {
  /// The path it was opened by.
  public let path: String
  /// The size of the file when it was opened, in bytes.
  public let byteCount: Int

  /// Open for reading as long as the map is there.
  package let descriptor: CInt
  /// `nil` when the file is empty.
  private let base: UnsafeMutableRawPointer?
  /// What the handler of `SIGBUS` knows of the map.
  private let entry: OpaquePointer?

  /// Opens the regular file at `path`; folders, pipes and devices are refused.
  /// - Throws: `FileError` for what is missing, no regular file, or can't be mapped.
  public convenience init(path: String) throws {
    guard let before = try FileStatus(at: path) else { throw FileError.missing(path: path) }
    // Opening a device can have effects of its own, so the kind is looked at first (and once more when it is open).
    try MappedFile.requireRegular(before, path)
    let descriptor = try FileError.naming(path, "open it") { () throws(SystemError) in
      try Posix.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
    }
    try self.init(adopting: descriptor, path: path)
  }

  /// Maps a regular file that is open for reading already, and closes it in the end, after an error too.
  ///
  /// - Parameter path: What messages call it.
  package init(adopting descriptor: CInt, path: String) throws {
    do {
      let status = try FileStatus(of: descriptor, path: path)
      try MappedFile.requireRegular(status, path)
      if status.byteCount > 0 {
        let base = try FileError.naming(path, "map it into memory") { () throws(SystemError) in
          try Posix.map(descriptor, byteCount: status.byteCount)
        }
        self.base = base
        entry = mpo_mapped_file_add(base, status.byteCount, descriptor, escaped(path, limit: 4096))
      } else {
        base = nil
        entry = nil
      }
      self.path = path
      self.descriptor = descriptor
      byteCount = status.byteCount
    } catch {
      Posix.close(descriptor)
      throw error
    }
  }

  deinit {
    mpo_mapped_file_remove(entry)
    if let base { Posix.unmap(base, byteCount: byteCount) }
    Posix.close(descriptor)
  }

  /// Calls `body` with the bytes of `range`, which are valid during the call only.
  ///
  /// - Throws: `FileError.rangeOutside` when the range lies outside the file, `.io` when the file has become shorter
  ///   since it was opened or its disk can't be read, and whatever `body` throws.
  public func withBytes<Result>(
    in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    guard range.lowerBound >= 0, range.upperBound <= byteCount else {
      throw FileError.rangeOutside(file: path, range: range, byteCount: byteCount)
    }
    guard let base, !range.isEmpty else { return try body(UnsafeRawBufferPointer(start: nil, count: 0)) }
    try checkSize(reaching: range.upperBound)

    let pageMask = MappedFile.pageSize - 1
    let start = range.lowerBound & ~pageMask
    let pages = (base + start, range.upperBound - start)
    defer { madvise(pages.0, pages.1, MADV_DONTNEED) }
    // Reads the pages now, so that a disk error or a cut file is a code here rather than a signal in `body`.
    // Older kernels do not know the advice, which is then no loss but that.
    if madvise(pages.0, pages.1, MappedFile.populateRead) != 0 {
      let code = errno
      if code == EFAULT || code == EHWPOISON {
        try checkSize(reaching: range.upperBound)
        throw FileError.system(path, "read bytes \(range.lowerBound)..<\(range.upperBound)", EIO)
      }
    }
    return try body(UnsafeRawBufferPointer(start: base + range.lowerBound, count: range.count))
  }

  /// Has the process end with status 1 and a message that names the file, rather than by `SIGBUS`, when a file loses
  /// pages that are in use: for programs, to be called once at their beginning.
  ///
  /// - Parameters:
  ///   - program: What the message begins with.
  ///   - descriptor: Where a zero byte is written then; whoever reads it has ten seconds to clean up and end the process.
  public static func reportLostPages(program: String, cleanUp descriptor: CInt = -1) {
    mpo_report_lost_pages(program, descriptor)
  }

  private func checkSize(reaching end: Int) throws {
    let now = try FileStatus(of: descriptor, path: path).byteCount
    guard now >= end else {
      throw FileError.io(
        file: path, operation: "read it",
        reason: "it has shrunk from \(byteCount) to \(now) bytes since it was opened; is something still writing it?")
    }
  }

  private static func requireRegular(_ status: FileStatus, _ path: String) throws {
    guard status.kind == .file else { throw FileError.notRegular(path: path, kind: status.kind) }
  }

  private static let pageSize = max(sysconf(CInt(_SC_PAGESIZE)), 4096)
  /// `MADV_POPULATE_READ` of Linux 5.14 and later.
  private static let populateRead: CInt = 22
}
