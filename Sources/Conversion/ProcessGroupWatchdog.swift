import Glibc

/// A process that ends a process group when this process is gone, however it ended: `SIGKILL` leaves no time to do it
/// here.
struct ProcessGroupWatchdog: ~Copyable {
  private let process: pid_t
  /// Our end of its standard input, which the system closes with us.
  private let input: Int32

  private static let script = """
    read -r group && ! read -r done && kill -s TERM -- "-$group" && sleep 2 && kill -s KILL -- "-$group"
    """

  /// Starts one; nil when that can't be done.
  init?() {
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      return nil
    }
    defer { close(ends[1]) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO)
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // What ends the group of this process, the terminal's Ctrl-C for one, is not to end the watchdog.
    posix_spawnattr_setflags(&attributes, Self.newSession)
    var arguments = ["sh", "-c", Self.script].map { (text: String) in strdup(text) } + [nil]
    defer { for text in arguments { free(text) } }
    var process: pid_t = 0
    guard posix_spawn(&process, "/bin/sh", &actions, &attributes, &arguments, environ) == 0 else {
      close(ends[0])
      return nil
    }
    self.process = process
    input = ends[0]
  }

  /// Names the group to end.
  func watch(_ group: pid_t) {
    let line = Array("\(group)\n".utf8)
    _ = send(input, line, line.count, Int32(MSG_NOSIGNAL))
  }

  deinit {
    kill(process, SIGKILL)
    close(input)
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
  }

  /// `POSIX_SPAWN_SETSID`, which glibc declares under `_GNU_SOURCE` only.
  private static let newSession: Int16 = 0x80
}
