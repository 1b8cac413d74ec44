import Files
import Glibc
import Synchronization

/// A command of the user, run by `/bin/sh -c` in a process group of its own, which does not outlive this process.
public struct ShellCommand: Sendable {
  /// As the user gave it; each `{}` in it stands for a path.
  public let text: String

  /// A command as `/bin/sh -c` takes it.
  public init(_ text: String) { self.text = text }

  /// How a run of the command ended.
  public struct Outcome: Sendable {
    /// What ended the run.
    public enum Ending: Sendable, Equatable {
      /// The shell exited with a status.
      case exited(status: Int32)
      /// A signal ended the shell.
      case killed(signal: Int32)
      /// The command and all of its process group were killed.
      case timedOut
    }
    /// What ended the run.
    public let ending: Ending
    /// The last part of what it wrote, at most `ShellCommand.keptBytes` of it.
    public let output: String
    /// The same of what it wrote to its standard error.
    public let errors: String
  }

  /// How much is kept of each stream.
  static let keptBytes = 1 << 16
  /// Between the request to end and the end by force.
  private static let grace = Duration.seconds(2)

  /// Runs the command and waits for it to end. It reads nothing: its standard input is empty.
  ///
  /// - Parameters:
  ///   - path: what `{}` stands for; it is quoted for the shell.
  ///   - variables: environment variables to add.
  ///   - timeout: when it is over, the process group is asked to end, and killed two seconds later.
  /// - Throws: `SqueezeLoopError.notStarted` when the shell can't be started.
  public func run(path: String, variables: [String: String], timeout: Duration?) throws -> Outcome {
    var output = try Pipe()
    var errors = try Pipe()
    let watchdog = ProcessGroupWatchdog()
    let command = text.split(separator: "{}", omittingEmptySubsequences: false).joined(separator: Self.quoted(path))
    let start = try Self.reportingStart { () throws(SystemError) in try Posix.socketPair() }
    defer { Posix.close(start.0) }
    let process = try Self.running.start {
      defer { Posix.close(start.1) }
      return try Self.reportingStart { () throws(SystemError) in
        try ChildProcess(
          "/bin/sh", ["-c", Self.waitingForStart, "sh", command], variables: variables, input: .descriptor(start.1),
          output: .descriptor(output.writeEnd), errors: .descriptor(errors.writeEnd), group: .own)
      }
    }
    watchdog?.watch(process.id)
    try Self.reportingStart { () throws(SystemError) in try Posix.send("start\n", to: start.0) }
    output.closeWriteEnd()
    errors.closeWriteEnd()

    let clock = ContinuousClock()
    let deadline = timeout.map { clock.now.advanced(by: $0) }
    var killTime: ContinuousClock.Instant?
    var hasTimedOut = false
    var ending: ChildProcess.Ending?
    defer { Self.running.ended(process) }
    while ending == nil {
      // Where both are closed the process is about to end. It may also leave its pipes to children in the background.
      let pipes = [output.readEnd, errors.readEnd]
      Posix.waitForInput(pipes, milliseconds: pipes.contains { $0 >= 0 } ? 100 : 5)
      output.read()
      errors.read()
      do {
        ending = try process.ending()
      } catch {
        throw SqueezeLoopError.notStarted(reason: "its exit status can't be read (\(SystemError.reason(error.code)))")
      }
      if let deadline, ending == nil, !hasTimedOut, clock.now >= deadline {
        hasTimedOut = true
        killTime = clock.now.advanced(by: Self.grace)
        process.signalGroup(SIGTERM)
      }
      if let time = killTime, clock.now >= time {
        process.signalGroup(SIGKILL)
        killTime = nil
      }
    }
    // What its children in the background still write is not waited for.
    output.read()
    errors.read()
    if hasTimedOut { process.signalGroup(SIGKILL) }
    let outcome: Outcome.Ending
    switch ending {
    case .exited(let status) where !hasTimedOut: outcome = .exited(status: status)
    case .killed(let signal) where !hasTimedOut: outcome = .killed(signal: signal)
    default: outcome = .timedOut
    }
    return Outcome(ending: outcome, output: output.text, errors: errors.text)
  }

  /// The command begins when the watchdog knows of it, so that it never outlives this process.
  private static let waitingForStart = "read -r start && exec /bin/sh -c \"$1\" </dev/null"

  private static func reportingStart<Result>(_ body: () throws(SystemError) -> Result) throws -> Result {
    do throws(SystemError) {
      return try body()
    } catch {
      throw SqueezeLoopError.notStarted(reason: SystemError.reason(error.code))
    }
  }

  /// As one word of the shell.
  static func quoted(_ path: String) -> String {
    "'" + path.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
  }

  // MARK: - Interruption

  /// Ends the commands that are running, with all of their process groups, and lets no new one begin: for the thread that
  /// handles signals, just before the process ends. A thread inside `run` does not come back.
  public static func terminateRunning() { running.close() }

  private static let running = Running()

  /// The process groups that run now.
  private final class Running: Sendable {
    private struct State {
      var processes: [pid_t: ChildProcess] = [:]
      var isClosed = false
    }
    private let state = Mutex(State())

    func start(_ spawn: () throws -> ChildProcess) throws -> ChildProcess {
      let process = try state.withLock { state -> ChildProcess? in
        if state.isClosed { return nil }
        let process = try spawn()
        state.processes[process.id] = process
        return process
      }
      guard let process else { waitForTheEnd() }
      return process
    }

    func ended(_ process: ChildProcess) {
      let isClosed = state.withLock { state in
        state.processes[process.id] = nil
        return state.isClosed
      }
      if isClosed { waitForTheEnd() }
    }

    func close() {
      let processes = state.withLock { state in
        state.isClosed = true
        return state.processes.values
      }
      for process in processes { process.signalGroup(SIGTERM) }
      // The thread inside `run` takes the status; until then the group exists.
      for _ in 0..<100 where processes.contains(where: { $0.signalGroup(0) }) { usleep(20_000) }
      for process in processes { process.signalGroup(SIGKILL) }
    }

    private func waitForTheEnd() -> Never {
      while true { pause() }
    }
  }
}

/// A pipe from the command, of which the last part is kept.
private struct Pipe: ~Copyable {
  /// Negative when it is closed.
  private(set) var readEnd: CInt
  private(set) var writeEnd: CInt
  private var kept: [UInt8] = []
  private let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 14, alignment: 16)

  init() throws {
    do {
      (readEnd, writeEnd) = try Posix.pipe()
    } catch {
      throw SqueezeLoopError.notStarted(reason: SystemError.reason(error.code))
    }
    Posix.setNonBlocking(readEnd)
  }

  deinit {
    block.deallocate()
    for end in [readEnd, writeEnd] where end >= 0 { Posix.close(end) }
  }

  mutating func closeWriteEnd() {
    Posix.close(writeEnd)
    writeEnd = -1
  }

  /// Takes what is there.
  mutating func read() {
    while readEnd >= 0, let count = try? Posix.read(readEnd, into: block) {
      kept += block[..<count]
      if kept.count > 4 * ShellCommand.keptBytes { kept.removeFirst(kept.count - ShellCommand.keptBytes) }
      if count == 0 {
        Posix.close(readEnd)
        readEnd = -1
      }
    }
  }

  var text: String { String(decoding: kept.suffix(ShellCommand.keptBytes), as: UTF8.self) }
}
