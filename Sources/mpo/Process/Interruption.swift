import Checkpoints
import Files
import Glibc
import SqueezeLoop
import Synchronization

/// Leaves nothing behind when the process is told to end.
enum Interruption {
  /// Installs the handlers; once, before any output is begun.
  ///
  /// SIGPIPE becomes an error of the write that met it.
  static func cleanUpOnSignals() {
    signal(SIGPIPE, SIG_IGN)
    guard signalPipe.read >= 0 else { return }
    // A parent may have started the tool from a thread that blocks them.
    var handled = sigset_t()
    sigemptyset(&handled)
    for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&handled, number) }
    pthread_sigmask(SIG_UNBLOCK, &handled, nil)
    var thread = pthread_t()
    pthread_create(&thread, nil, { _ in Interruption.waitAndCleanUp() }, nil)
    MappedFile.reportLostPages(program: "mpo", cleanUp: signalPipe.write)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      var action = sigaction()
      // The handler may run on any thread, the BLAS library's among them: it only passes the number on.
      action.__sigaction_handler.sa_handler = { number in
        var byte = UInt8(truncatingIfNeeded: number)
        _ = Glibc.write(signalPipe.write, &byte, 1)
      }
      action.sa_flags = SA_RESTART
      // What whoever started the tool has it ignore (nohup, a shell's background job) stays ignored.
      var old = sigaction()
      sigaction(number, nil, &old)
      if !isIgnored(old) { sigaction(number, &action, nil) }
    }
  }

  /// Waits for the process to end where a signal ends it: the failure at hand comes from outputs that are taken away.
  static func waitIfCleaningUp() {
    while isCleaningUp.load(ordering: .sequentiallyConsistent) { pause() }
  }

  private static func isIgnored(_ action: sigaction) -> Bool {
    unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
      == unsafeBitCast(SIG_IGN, to: Int.self)
  }

  private static func waitAndCleanUp() -> UnsafeMutableRawPointer? {
    var byte: UInt8 = 0
    while read(signalPipe.read, &byte, 1) != 1 {}
    isCleaningUp.store(true, ordering: .sequentiallyConsistent)
    ShellCommand.terminateRunning()
    AtomicOutput.discardAll()
    // Zero is from the handler of lost pages, which has said what is wrong.
    _exit(byte == 0 ? 1 : 128 + Int32(byte))
  }
}

private let isCleaningUp = Atomic(false)

/// From the signal handlers to the thread that cleans up; negative when there is no pipe to be had.
private let signalPipe: (read: Int32, write: Int32) = {
  var ends: [Int32] = [-1, -1]
  guard pipe(&ends) == 0 else { return (-1, -1) }
  for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
  return (ends[0], ends[1])
}()
