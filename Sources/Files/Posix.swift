import CLinux
import Glibc

/// The error number of a system call that failed.
package struct SystemError: Error, Sendable, Equatable {
  /// `errno`.
  package let code: CInt
  /// How many bytes a write left over.
  package let unwritten: Int?

  package init(_ code: CInt, unwritten: Int? = nil) {
    self.code = code
    self.unwritten = unwritten
  }

  /// The system's words for an error number, with a small first letter as they stand inside a sentence: `strerror_r(3)`.
  package static func reason(_ code: CInt) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.prefix(1).lowercased() + text.dropFirst()
  }
}

/// The system calls of the project: each wrapper names its C function, throws `SystemError`, and is made again when a
/// signal interrupted it. Descriptors are closed in processes that are started.
package enum Posix {
  package typealias Descriptor = CInt

  /// The value of a system call.
  private static func value<Value: SignedInteger>(_ call: () -> Value) throws(SystemError) -> Value {
    while true {
      let value = call()
      if value != -1 { return value }
      let code = errno
      guard code == EINTR else { throw SystemError(code) }
    }
  }

  /// A system call without a value.
  private static func perform(_ call: () -> CInt) throws(SystemError) { _ = try value(call) }

  // MARK: - Files

  /// `open(2)`.
  package static func open(_ path: String, _ flags: CInt, mode: mode_t = 0o666) throws(SystemError) -> Descriptor {
    try value { Glibc.open(path, flags | O_CLOEXEC, mode) }
  }

  /// `close(2)`, which Linux finishes even when a signal interrupts it.
  package static func close(_ descriptor: Descriptor) { _ = Glibc.close(descriptor) }

  /// `fcntl(2)` with `F_DUPFD_CLOEXEC`: a second descriptor of the same file.
  package static func duplicate(_ descriptor: Descriptor) throws(SystemError) -> Descriptor {
    try value { fcntl(descriptor, F_DUPFD_CLOEXEC, 0) }
  }

  /// `read(2)`: the number of bytes that were read, 0 at the end of the file.
  package static func read(
    _ descriptor: Descriptor, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int {
    try value { Glibc.read(descriptor, buffer.baseAddress, buffer.count) }
  }

  /// `write(2)` until all of `bytes` is written.
  package static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Descriptor) throws(SystemError) {
    try writeAll(bytes) { rest, _ in Glibc.write(descriptor, rest.baseAddress, rest.count) }
  }

  /// `pwrite(2)` until all of `bytes` is written at `offset`; from any thread.
  package static func write(
    _ bytes: UnsafeRawBufferPointer, to descriptor: Descriptor, at offset: Int
  ) throws(SystemError) {
    try writeAll(bytes) { rest, done in pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + done)) }
  }

  /// Calls `write` with what is left of `bytes`, and the number of those that are written, until nothing is left.
  private static func writeAll(
    _ bytes: UnsafeRawBufferPointer, _ write: (UnsafeRawBufferPointer, Int) -> Int
  ) throws(SystemError) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count: Int
      do {
        // Linux takes less than 2^31 bytes at once.
        count = try value { write(UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 30)), bytes.count - rest.count) }
      } catch {
        throw SystemError(error.code, unwritten: rest.count)
      }
      guard count > 0 else { throw SystemError(ENOSPC, unwritten: rest.count) }
      rest = rest.dropFirst(count)
    }
  }

  /// `fsync(2)`: waits until everything is on the disk.
  package static func synchronize(_ descriptor: Descriptor) throws(SystemError) {
    try perform { fsync(descriptor) }
  }

  /// Asks the system to begin to write a range to the disk, so that `synchronize` has less to wait for; where it can't, nothing
  /// is lost.
  package static func beginFlush(_ descriptor: Descriptor, in range: Range<Int>) {
    mpo_begin_flush(descriptor, range.lowerBound, range.count)
  }

  /// Lets freed memory wait for the next use instead of giving it back to the system: in the whole process.
  package static func keepFreedMemory() { mpo_keep_freed_memory() }

  /// `ftruncate(2)`.
  package static func resize(_ descriptor: Descriptor, to byteCount: Int) throws(SystemError) {
    do {
      try perform { ftruncate(descriptor, off_t(byteCount)) }
    } catch {
      throw SystemError(error.code, unwritten: byteCount == 0 ? nil : byteCount)
    }
  }

  /// `flock(2)`: takes the exclusive lock; false when another process has it.
  package static func lock(_ descriptor: Descriptor) -> Bool { tryLock(descriptor) == true }

  /// `flock(2)`: takes the exclusive lock; false when another process has it, nil where the file system has no locks.
  package static func tryLock(_ descriptor: Descriptor) -> Bool? {
    do {
      try perform { flock(descriptor, LOCK_EX | LOCK_NB) }
      return true
    } catch {
      return [ENOLCK, ENOSYS, ENOTSUP, EINVAL].contains(error.code) ? nil : false
    }
  }

  /// `flock(2)`: gives the lock back. Closing does not while a process that is being started has a copy of the descriptor.
  package static func unlock(_ descriptor: Descriptor) { _ = flock(descriptor, LOCK_UN) }

  /// `fstat(2)`.
  package static func status(of descriptor: Descriptor) throws(SystemError) -> stat {
    var status = stat()
    try perform { fstat(descriptor, &status) }
    return status
  }

  /// `stat(2)`, or `lstat(2)`.
  package static func status(at path: String, followingLinks: Bool) throws(SystemError) -> stat {
    var status = stat()
    try perform { followingLinks ? stat(path, &status) : lstat(path, &status) }
    return status
  }

  /// `mkstemp(3)`: a new file of the form `<prefix>XXXXXX`, open for reading and writing.
  package static func temporaryFile(prefix: String) throws(SystemError) -> (descriptor: Descriptor, path: String) {
    var template = Array((prefix + "XXXXXX").utf8CString)
    let descriptor = try value { mkstemp(&template) }
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    return (descriptor, String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }

  // MARK: - Names

  /// `mkdir(2)`.
  package static func makeFolder(_ path: String) throws(SystemError) { try perform { mkdir(path, 0o777) } }

  /// `unlink(2)`.
  package static func unlink(_ path: String) throws(SystemError) { try perform { Glibc.unlink(path) } }

  /// `rmdir(2)`.
  package static func removeFolder(_ path: String) throws(SystemError) { try perform { rmdir(path) } }

  /// `link(2)`.
  package static func link(_ path: String, as name: String) throws(SystemError) {
    try perform { Glibc.link(path, name) }
  }

  /// `rename(2)`.
  package static func rename(_ path: String, to name: String) throws(SystemError) {
    try perform { Glibc.rename(path, name) }
  }

  /// What `rename(_:to:flags:)` does with a file that has the name already.
  package enum RenameFlag: CUnsignedInt {
    case noReplace = 1
    case exchange = 2
  }

  /// `renameat2(2)`.
  package static func rename(_ path: String, to name: String, _ flag: RenameFlag) throws(SystemError) {
    try perform { renameat2(AT_FDCWD, path, AT_FDCWD, name, flag.rawValue) }
  }

  /// `access(2)`.
  package static func checkAccess(_ path: String, _ mode: CInt) throws(SystemError) {
    try perform { access(path, mode) }
  }

  /// `realpath(3)`: the path without symbolic links, `.` and `..`.
  package static func realPath(_ path: String) throws(SystemError) -> String {
    guard let real = realpath(path, nil) else { throw SystemError(errno) }
    defer { free(real) }
    return String(cString: real)
  }

  /// `getcwd(3)`.
  package static func workingFolder() -> String? {
    guard let path = getcwd(nil, 0) else { return nil }
    defer { free(path) }
    return String(cString: path)
  }

  /// `opendir(3)`, `readdir(3)`: the names in a folder but `.` and `..`, in the system's order, as bytes.
  package static func names(in path: String) throws(SystemError) -> [[CChar]] {
    guard let stream = opendir(path) else { throw SystemError(errno) }
    return try names(of: stream)
  }

  /// `fdopendir(3)`, `readdir(3)`: the same of an open folder, which stays open.
  package static func names(in folder: Descriptor) throws(SystemError) -> [[CChar]] {
    let copy = try duplicate(folder)
    guard let stream = fdopendir(copy) else {
      let code = errno
      close(copy)
      throw SystemError(code)
    }
    return try names(of: stream)
  }

  private static func names(of stream: OpaquePointer) throws(SystemError) -> [[CChar]] {
    defer { closedir(stream) }
    var names: [[CChar]] = []
    while true {
      errno = 0
      guard let entry = readdir(stream) else {
        let code = errno
        guard code == 0 else { throw SystemError(code) }
        return names
      }
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) {
          Array(UnsafeBufferPointer(start: $0, count: strlen($0) + 1))
        }
      }
      if name != [0x2E, 0], name != [0x2E, 0x2E, 0] { names.append(name) }
    }
  }

  /// `openat(2)`: a folder in an open folder; links are not followed.
  package static func openFolder(_ name: [CChar], in folder: Descriptor) throws(SystemError) -> Descriptor {
    try value { openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) }
  }

  /// `unlinkat(2)`: removes a file, or an empty folder, of an open folder.
  package static func unlink(
    _ name: [CChar], in folder: Descriptor, isFolder: Bool = false
  ) throws(SystemError) {
    try perform { unlinkat(folder, name, isFolder ? AT_REMOVEDIR : 0) }
  }

  // MARK: - Memory

  /// `mmap(2)`: a file for reading.
  package static func map(_ descriptor: Descriptor, byteCount: Int) throws(SystemError) -> UnsafeMutableRawPointer {
    try map(byteCount, PROT_READ, MAP_SHARED, descriptor)
  }

  /// `mmap(2)`: memory that goes back to the system when it is unmapped.
  package static func mapMemory(byteCount: Int) throws(SystemError) -> UnsafeMutableRawPointer {
    try map(byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1)
  }

  private static func map(
    _ byteCount: Int, _ protection: CInt, _ flags: CInt, _ descriptor: Descriptor
  ) throws(SystemError) -> UnsafeMutableRawPointer {
    guard let base = mmap(nil, byteCount, protection, flags, descriptor, 0), base != MAP_FAILED else {
      throw SystemError(errno)
    }
    return base
  }

  /// `munmap(2)`.
  package static func unmap(_ base: UnsafeMutableRawPointer, byteCount: Int) { munmap(base, byteCount) }

  // MARK: - Pipes and processes

  /// `pipe2(2)`.
  package static func pipe() throws(SystemError) -> (readEnd: Descriptor, writeEnd: Descriptor) {
    var ends: [CInt] = [-1, -1]
    try perform { mpo_pipe(&ends) }
    return (ends[0], ends[1])
  }

  /// `socketpair(2)`: two connected ends, for both directions.
  package static func socketPair() throws(SystemError) -> (Descriptor, Descriptor) {
    var ends: [CInt] = [-1, -1]
    try perform { socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends) }
    return (ends[0], ends[1])
  }

  /// `send(2)`, without a signal where nobody listens.
  package static func send(_ text: String, to socket: Descriptor) throws(SystemError) {
    let bytes = Array(text.utf8)
    _ = try value { Glibc.send(socket, bytes, bytes.count, CInt(MSG_NOSIGNAL)) }
  }

  /// `fcntl(2)` with `O_NONBLOCK`: reading what is not there fails with `EAGAIN`.
  package static func setNonBlocking(_ descriptor: Descriptor) { _ = fcntl(descriptor, F_SETFL, O_NONBLOCK) }

  /// `poll(2)`: waits until one of the descriptors can be read or is closed, at most so long. Negative ones are ignored.
  package static func waitForInput(_ descriptors: [Descriptor], milliseconds: CInt) {
    var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    _ = poll(&entries, nfds_t(entries.count), milliseconds)
  }

  /// `waitpid(2)`: the status of a child that ended; `nil` while it runs and is not waited for.
  package static func waitStatus(of child: pid_t, waiting: Bool) throws(SystemError) -> CInt? {
    var status: CInt = 0
    return try value { waitpid(child, &status, waiting ? 0 : WNOHANG) } == child ? status : nil
  }

  /// `kill(2)`: whether the signal could be sent. Negative numbers are process groups, signal 0 only asks.
  @discardableResult
  package static func signal(_ process: pid_t, _ signal: CInt) -> Bool { kill(process, signal) == 0 }
}
