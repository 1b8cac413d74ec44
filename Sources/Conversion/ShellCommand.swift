import Checkpoints
import FoundationEssentials
import Glibc
import Synchronization

/// A command of the user, run by `/bin/sh -c` in a process group of its own, which does not outlive this process.
public struct ShellCommand: Sendable {
  /// As the user gave it; each `{}` in it stands for a path.
  public let text: String

  public init(_ text: String) { self.text = text }

  /// How a run of the command ended.
  public struct Outcome: Sendable {
    public enum Ending: Sendable, Equatable {
      case exited(status: Int32)
      case killed(signal: Int32)
      /// The command and all of its process group were killed.
      case timedOut
    }
    public let ending: Ending
    /// The last part of what it wrote, at most `ShellCommand.keptBytes` of it.
    public let output: String
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
    let process = try Self.running.start {
      try spawn(path: path, variables: variables, output: output.writeEnd, errors: errors.writeEnd)
    }
    watchdog?.watch(process)
    output.closeWriteEnd()
    errors.closeWriteEnd()

    let clock = ContinuousClock()
    let deadline = timeout.map { clock.now.advanced(by: $0) }
    var killTime: ContinuousClock.Instant?
    var hasTimedOut = false
    var status: Int32?
    while status == nil {
      waitForOutput([output.descriptor, errors.descriptor])
      output.read()
      errors.read()
      status = Self.status(of: process)
      if let deadline, status == nil, !hasTimedOut, clock.now >= deadline {
        hasTimedOut = true
        killTime = clock.now.advanced(by: Self.grace)
        kill(-process, SIGTERM)
      }
      if let time = killTime, clock.now >= time {
        kill(-process, SIGKILL)
        killTime = nil
      }
    }
    // What its children in the background still write is not waited for.
    output.read()
    errors.read()
    if hasTimedOut { kill(-process, SIGKILL) }
    Self.running.ended(process)
    guard let status else { throw SqueezeLoopError.notStarted(reason: "its end was missed") }
    let signal = status & 0x7F
    let ending: Outcome.Ending =
      hasTimedOut ? .timedOut : signal == 0 ? .exited(status: (status >> 8) & 0xFF) : .killed(signal: signal)
    return Outcome(ending: ending, output: output.text, errors: errors.text)
  }

  /// The wait status; nil while the process runs.
  private static func status(of process: pid_t) -> Int32? {
    var status: Int32 = 0
    return waitpid(process, &status, WNOHANG) == process ? status : nil
  }

  private func spawn(path: String, variables: [String: String], output: Int32, errors: Int32) throws -> pid_t {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The parent ignores or handles these; the command is to find them as a shell would.
    var defaults = sigset_t()
    sigemptyset(&defaults)
    for signal in [SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT] { sigaddset(&defaults, signal) }
    var mask = sigset_t()
    sigemptyset(&mask)
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    posix_spawnattr_setsigmask(&attributes, &mask)
    posix_spawnattr_setpgroup(&attributes, 0)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
    posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO)

    let command = text.split(separator: "{}", omittingEmptySubsequences: false).joined(separator: Self.quoted(path))
    let environment = ProcessInfo.processInfo.environment.merging(variables) { $1 }
    var arguments: [UnsafeMutablePointer<CChar>?] = ["sh", "-c", command].map { (text: String) in strdup(text) }
    var entries: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") }
    arguments.append(nil)
    entries.append(nil)
    defer {
      for text in arguments + entries { free(text) }
    }
    var process: pid_t = 0
    let code = posix_spawn(&process, "/bin/sh", &actions, &attributes, &arguments, &entries)
    guard code == 0 else { throw SqueezeLoopError.notStarted(reason: systemReason(code)) }
    return process
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
      var groups: Set<pid_t> = []
      var isClosed = false
    }
    private let state = Mutex(State())

    func start(_ spawn: () throws -> pid_t) throws -> pid_t {
      let group = try state.withLock { state -> pid_t? in
        if state.isClosed { return nil }
        let group = try spawn()
        state.groups.insert(group)
        return group
      }
      guard let group else { waitForTheEnd() }
      return group
    }

    func ended(_ group: pid_t) {
      let isClosed = state.withLock { state in
        state.groups.remove(group)
        return state.isClosed
      }
      if isClosed { waitForTheEnd() }
    }

    func close() {
      let groups = state.withLock { state in
        state.isClosed = true
        return state.groups
      }
      for group in groups { kill(-group, SIGTERM) }
      // The thread inside `run` takes the status; until then the group exists.
      for _ in 0..<100 where groups.contains(where: { kill(-$0, 0) == 0 }) { usleep(20_000) }
      for group in groups { kill(-group, SIGKILL) }
    }

    private func waitForTheEnd() -> Never {
      while true { pause() }
    }
  }
}

/// Waits until one of the pipes has something, or is closed, but a moment only: a process may end and leave its pipes to
/// children in the background.
private func waitForOutput(_ descriptors: [Int32]) {
  // Where both are closed the process is about to end.
  let isOpen = descriptors.contains { $0 >= 0 }
  var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
  _ = poll(&entries, nfds_t(entries.count), isOpen ? 100 : 5)
}

/// A pipe from the command, of which the last part is kept.
private struct Pipe: ~Copyable {
  private var readEnd: Int32
  private(set) var writeEnd: Int32
  private var kept: [UInt8] = []

  init() throws {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw SqueezeLoopError.notStarted(reason: systemReason(errno)) }
    (readEnd, writeEnd) = (ends[0], ends[1])
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
  }

  deinit {
    if readEnd >= 0 { close(readEnd) }
    if writeEnd >= 0 { close(writeEnd) }
  }

  mutating func closeWriteEnd() {
    close(writeEnd)
    writeEnd = -1
  }

  /// Takes what is there.
  mutating func read() {
    var block = [UInt8](repeating: 0, count: 1 << 14)
    while readEnd >= 0 {
      let count = Glibc.read(readEnd, &block, block.count)
      if count > 0 {
        kept += block[..<count]
        if kept.count > 4 * ShellCommand.keptBytes { kept.removeFirst(kept.count - ShellCommand.keptBytes) }
      } else if count == 0 {
        close(readEnd)
        readEnd = -1
      } else if errno != EINTR {
        return
      }
    }
  }

  var text: String { String(decoding: kept.suffix(ShellCommand.keptBytes), as: UTF8.self) }

  var descriptor: Int32 { readEnd }
}
