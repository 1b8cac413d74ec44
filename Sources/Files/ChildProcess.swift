import Glibc

/// A process that this one started, by `posix_spawn(3)`. It gets no descriptors but its three streams.
package struct ChildProcess: Sendable {
  /// What a stream of the process is.
  package enum Stream: Sendable {
    case null
    case descriptor(CInt)
  }

  /// Which processes get the signals that are meant for it.
  package enum Group: Sendable {
    /// The group of this process.
    case shared
    /// A new group with its own number, which `signalGroup` reaches. The process finds the signals that this one handles,
    /// ignores or blocks as a shell would leave them.
    case own
    /// A new session, which no terminal's Ctrl-C reaches.
    case session
  }

  /// How a process ended.
  package enum Ending: Sendable, Equatable {
    case exited(status: Int32)
    case killed(signal: Int32)
  }

  /// Its number, that of its group too where it has its own.
  package let id: pid_t

  /// Starts a program.
  ///
  /// - Parameters:
  ///   - program: The path of its file.
  ///   - arguments: The arguments behind its name.
  ///   - variables: Environment variables to add to those of this process, or to replace.
  package init(
    _ program: String, _ arguments: [String], variables: [String: String] = [:], input: Stream = .null,
    output: Stream = .null, errors: Stream = .null, group: Group = .shared
  ) throws(SystemError) {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (stream, target) in [(input, STDIN_FILENO), (output, STDOUT_FILENO), (errors, STDERR_FILENO)] {
      switch stream {
      case .null:
        posix_spawn_file_actions_addopen(
          &actions, target, "/dev/null", target == STDIN_FILENO ? O_RDONLY : O_WRONLY, 0)
      case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, target)
      }
    }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    switch group {
    case .shared: break
    case .session: posix_spawnattr_setflags(&attributes, Self.newSession)
    case .own:
      var signals = sigset_t()
      sigemptyset(&signals)
      posix_spawnattr_setsigmask(&attributes, &signals)
      for signal in [SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT] { sigaddset(&signals, signal) }
      posix_spawnattr_setsigdefault(&attributes, &signals)
      posix_spawnattr_setpgroup(&attributes, 0)
      posix_spawnattr_setflags(
        &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))
    }
    let name = pathComponents(of: program).last ?? program
    var words = ([name] + arguments).map { strdup($0) } + [nil]
    var environment = Self.environment(adding: variables).map { strdup($0) } + [nil]
    defer { for text in words + environment { free(text) } }
    var id: pid_t = 0
    let code = posix_spawn(&id, program, &actions, &attributes, &words, &environment)
    guard code == 0 else { throw SystemError(code) }
    self.id = id
  }

  /// How it ended; `nil` while it runs and is not waited for. It is to be asked until it says so, and not again.
  package func ending(waiting: Bool = false) throws(SystemError) -> Ending? {
    guard let status = try Posix.waitStatus(of: id, waiting: waiting) else { return nil }
    let signal = status & 0x7F
    return signal == 0 ? .exited(status: (status >> 8) & 0xFF) : .killed(signal: signal)
  }

  /// Sends it a signal.
  package func signal(_ signal: CInt) { Posix.signal(id, signal) }

  /// Sends a signal to its own group, and says whether there is one; 0 only asks.
  @discardableResult
  package func signalGroup(_ signal: CInt) -> Bool { Posix.signal(-id, signal) }

  /// The memory it has now, in bytes; 0 when that is not known.
  package var residentBytes: Int {
    guard let descriptor = try? Posix.open("/proc/\(id)/statm", O_RDONLY) else { return 0 }
    defer { Posix.close(descriptor) }
    // The size of everything, then that of what is in memory, in pages.
    var text = [UInt8](repeating: 0, count: 128)
    let count = text.withUnsafeMutableBytes { (try? Posix.read(descriptor, into: $0)) ?? 0 }
    let numbers = String(decoding: text[..<count], as: UTF8.self).split(separator: " ")
    return numbers.count > 1 ? (Int(numbers[1]) ?? 0) * Int(getpagesize()) : 0
  }

  /// The entries of this process's environment, `NAME=value`, some of them added or replaced.
  private static func environment(adding variables: [String: String]) -> [String] {
    var result = variables.map { "\($0.key)=\($0.value)" }
    var next = environ
    while let entry = next.pointee {
      let text = String(cString: entry)
      if !variables.keys.contains(where: { text.utf8.starts(with: ($0 + "=").utf8) }) { result.append(text) }
      next += 1
    }
    return result
  }

  /// `POSIX_SPAWN_SETSID`, which glibc declares under `_GNU_SOURCE` only.
  private static let newSession: Int16 = 0x80
}
