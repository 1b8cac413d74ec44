import CHDF5
import Files
import Glibc
import Synchronization

/// Looks at HDF5 files in a process of its own before this one opens them.
///
/// libhdf5 1.10 trusts some of what a file says, so a deliberately damaged one can crash it. A program that opens files
/// of unknown origin names a program that does nothing but `examine` them: when that crashes, the file is refused. The
/// `mpo` tool does so; a library that is not told of such a program opens files at once.
public enum HDF5Probe {
  struct Program: Sendable {
    let path: String
    let arguments: [String]
    var timeLimit = Duration.seconds(60)
  }

  private static let program = Mutex<Program?>(nil)

  /// Has a program examine every HDF5 file that is opened from now on. It gets the file as its standard input.
  ///
  /// - Parameters:
  ///   - path: The program to run.
  ///   - arguments: What it is called with.
  ///   - timeLimit: When it is over, the file counts as damaged. (What is read of a file takes milliseconds.)
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
    let checkpoint = try HDF5Checkpoint(path: file.path, parts: [file], isSkeleton: true)
    for (tensor, dataset) in zip(checkpoint.tensors, checkpoint.datasets) where dataset.unknownFilter == nil {
      switch dataset.layout {
      case .plain: continue
      case .chunks(let grid): try HDF5ChunkReader(file, dataset, grid).locateAll()
      case .other: try? checkpoint.withBytes(of: tensor) { _ in }
      }
    }
    let copy = try (try? TemporaryFile(in: "/dev/shm")) ?? TemporaryFile()
    defer { Posix.close(copy.descriptor) }
    let output = try copy.withPath {
      try HDF5OutputFile(path: $0, creating: $0, writtenThrough: copy.descriptor, like: file)
    }
    try HDF5StructureCopy.copy(file, leavingOut: Set(checkpoint.tensors.map(\.key)), to: output)
    try output.close()
  }

  /// Has the file that is open as `descriptor` examined, where a program for it was named.
  ///
  /// - Parameter path: What messages call the file.
  /// - Throws: `CheckpointError.malformed` when the program crashed, did not come to an end, or took far more memory than
  ///   the file has bytes.
  static func check(_ descriptor: CInt, path: String) throws {
    if let program = program.withLock({ $0 }) { try check(descriptor, path: path, by: program) }
  }

  /// The same by a program that is given.
  static func check(_ descriptor: CInt, path: String, by program: Program) throws {
    guard
      let process = try? ChildProcess(
        program.path, program.arguments, variables: probeVariables, input: .descriptor(descriptor))
    else { return }
    func refused(_ reason: String) -> CheckpointError {
      .malformed(
        file: path, tensor: nil,
        reason: "is not a valid HDF5 file: libhdf5 \(reason); the file is damaged or malicious")
    }
    let deadline = ContinuousClock.now.advanced(by: program.timeLimit)
    let memoryLimit = 2 * ((try? FileStatus(of: descriptor, path: path).byteCount) ?? 0) + (1 << 30)
    var pause: useconds_t = 500
    while true {
      let found: ChildProcess.Ending?
      do { found = try process.ending() } catch { return }
      guard let ending = found else {
        let isOutOfTime = ContinuousClock.now >= deadline
        if isOutOfTime || process.residentBytes > memoryLimit {
          process.signal(SIGKILL)
          _ = try? process.ending(waiting: true)
          throw refused(
            isOutOfTime
              ? "does not finish reading it in time" : "takes more than \(memoryLimit >> 20) MB of memory for it"
          )
        }
        usleep(pause)
        pause = min(pause + pause / 4, 20_000)
        continue
      }
      if case .killed(let signal) = ending { throw refused("crashes on it (signal \(signal))") }
      return
    }
  }

  private static let probeVariables = [
    // It multiplies no matrices: threads for that would only take time to start.
    "OPENBLAS_NUM_THREADS": "1",
    // Memory that was never written is full of large numbers, so that a use of it crashes here rather than later.
    "MALLOC_PERTURB_": "90",
    "SWIFT_BACKTRACE": "enable=no",
  ]
}
