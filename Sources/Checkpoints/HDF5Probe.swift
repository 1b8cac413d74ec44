import CHDF5
import Glibc
import Synchronization

/// Looks at HDF5 files in a process of its own before this one opens them.
///
/// libhdf5 1.10 trusts some of what a file says, so a deliberately damaged one can crash it. A program that opens files
/// of unknown origin names a program that does nothing but `examine` them: when that crashes, the file is refused. The
/// `mpo` tool does so; a library that is not told of such a program opens files at once.
public enum HDF5Probe {
  private struct Program {
    let path: String
    let arguments: [String]
    let timeLimit: Duration
  }

  private static let program = Mutex<Program?>(nil)

  /// Has a program examine every HDF5 file that is opened from now on. It gets the file as its standard input.
  ///
  /// - Parameter timeLimit: When it is over, the file counts as damaged. (What is read of a file takes milliseconds.)
  public static func use(program path: String, arguments: [String], timeLimit: Duration = .seconds(60)) {
    program.withLock { $0 = Program(path: path, arguments: arguments, timeLimit: timeLimit) }
  }

  /// Makes every call of libhdf5 that reading a file and copying its structure can lead to, on the file that is the
  /// standard input; what the program of `use` does.
  ///
  /// - Throws: `CheckpointError` for an invalid file, which says no more than that libhdf5 did not crash.
  public static func examineStandardInput() throws {
    // A crash is what it is for: no core is kept of it.
    var none = rlimit()
    setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    let file = try HDF5File(path: "/proc/self/fd/0")
    let checkpoint = try HDF5Checkpoint(file: file, isSkeleton: true)
    for (tensor, dataset) in zip(checkpoint.tensors, checkpoint.datasets) where dataset.unknownFilter == nil {
      switch dataset.layout {
      case .plain: continue
      case .chunks(let grid): try HDF5ChunkReader(file, dataset, grid).locateAll()
      case .other: try? checkpoint.withBytes(of: tensor) { _ in }
      }
    }
    let copy = try (try? TemporaryFile(in: "/dev/shm")) ?? TemporaryFile()
    defer { close(copy.descriptor) }
    let output = try copy.withPath {
      try HDF5OutputFile(path: $0, creating: $0, writtenThrough: copy.descriptor, like: file)
    }
    try HDF5StructureCopy.copy(file, leavingOut: Set(checkpoint.tensors.map(\.name)), to: output)
    try output.close()
  }

  /// Has the file that is open as `descriptor` examined, where a program for it was named.
  ///
  /// - Parameter path: What messages call the file.
  /// - Throws: `CheckpointError.malformed` when the program crashed, did not come to an end, or took far more memory than
  ///   the file has bytes.
  static func check(_ descriptor: CInt, path: String) throws {
    guard let program = program.withLock({ $0 }), let process = start(program, descriptor) else { return }
    func refused(_ reason: String) -> CheckpointError {
      .malformed(
        file: path, tensor: nil,
        reason: "is no valid HDF5 file: libhdf5 \(reason); it is damaged, or made to do harm")
    }
    let deadline = ContinuousClock.now.advanced(by: program.timeLimit)
    let memoryLimit = 2 * ((try? FileStatus(of: descriptor, path: path).byteCount) ?? 0) + (1 << 30)
    var pause: useconds_t = 500
    var status: Int32 = 0
    while true {
      let found = waitpid(process, &status, WNOHANG)
      if found == process { break }
      if found < 0, errno != EINTR { return }
      let isOutOfTime = ContinuousClock.now >= deadline
      if isOutOfTime || residentBytes(of: process) > memoryLimit {
        kill(process, SIGKILL)
        waitpid(process, &status, 0)
        throw refused(
          isOutOfTime ? "does not come to an end with it" : "takes more than \(memoryLimit >> 20) MB of memory for it")
      }
      usleep(pause)
      pause = min(pause + pause / 4, 20_000)
    }
    if status & 0x7F != 0 { throw refused("crashes on it (signal \(status & 0x7F))") }
  }

  /// The memory a process has now; 0 when that is not known.
  private static func residentBytes(of process: pid_t) -> Int {
    let descriptor = open("/proc/\(process)/statm", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return 0 }
    defer { close(descriptor) }
    // The size of everything, then that of what is in memory, in pages.
    var text = [UInt8](repeating: 0, count: 128)
    let count = max(0, read(descriptor, &text, text.count))
    let numbers = String(decoding: text[..<count], as: UTF8.self).split(separator: " ")
    return numbers.count > 1 ? (Int(numbers[1]) ?? 0) * Int(getpagesize()) : 0
  }

  /// Starts the program; `nil` when it can't be started.
  private static func start(_ program: Program, _ descriptor: CInt) -> pid_t? {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, descriptor, STDIN_FILENO)
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)
    var arguments = ([program.path] + program.arguments).map { strdup($0) } + [nil]
    var environment =
      ProcessEnvironment.entries(
        adding: [
          // It multiplies no matrices: threads for that would only take time to start.
          ("OPENBLAS_NUM_THREADS", "1"),
          // Memory that was never written is full of large numbers, so that a use of it crashes here rather than later.
          ("MALLOC_PERTURB_", "90"),
          ("SWIFT_BACKTRACE", "enable=no"),
        ]
      ).map { strdup($0) } + [nil]
    defer { for text in arguments + environment { free(text) } }
    var process: pid_t = 0
    guard posix_spawn(&process, program.path, &actions, nil, &arguments, &environment) == 0 else { return nil }
    return process
  }
}

/// The environment of this process.
private enum ProcessEnvironment {
  /// Its entries, `NAME=value`, some of them replaced.
  static func entries(adding variables: [(name: String, value: String)]) -> [String] {
    var result = variables.map { "\($0.name)=\($0.value)" }
    var next = environ
    while let entry = next.pointee {
      let text = String(cString: entry)
      if !variables.contains(where: { text.hasPrefix($0.name + "=") }) { result.append(text) }
      next += 1
    }
    return result
  }
}
