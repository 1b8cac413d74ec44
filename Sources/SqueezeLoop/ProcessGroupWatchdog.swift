import Files
import Glibc

/// A process that ends a process group when this process is gone, however it ended: `SIGKILL` leaves no time to do it
/// here.
struct ProcessGroupWatchdog: ~Copyable {
  private let process: ChildProcess
  /// Our end of its standard input, which the system closes with us.
  private let input: CInt

  private static let script = """
    read -r group && ! read -r done && kill -s TERM -- "-$group" && sleep 2 && kill -s KILL -- "-$group"
    """

  /// Starts one; nil when that can't be done.
  init?() {
    guard let (own, other) = try? Posix.socketPair() else { return nil }
    defer { Posix.close(other) }
    do {
      // What ends the group of this process, the terminal's Ctrl-C for one, is not to end the watchdog.
      process = try ChildProcess("/bin/sh", ["-c", Self.script], input: .descriptor(other), group: .session)
    } catch {
      Posix.close(own)
      return nil
    }
    input = own
  }

  /// Names the group to end.
  func watch(_ group: pid_t) { try? Posix.send("\(group)\n", to: input) }

  deinit {
    process.signal(SIGKILL)
    Posix.close(input)
    _ = try? process.ending(waiting: true)
  }
}
