import Synchronization

extension AtomicOutput {
  /// The outputs of a process that are neither committed nor discarded.
  package final class Registry: Sendable {
    package static let shared = Registry()

    private struct Entry {
      weak var output: AtomicOutput?
    }
    private struct State {
      var entries: [ObjectIdentifier: Entry] = [:]
      /// Of all outputs that were ever begun.
      var names: [(temporary: String, final: String)] = []
      var isClosed = false
    }
    private let state = Mutex(State())

    package init() {}

    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Adds an output; false when the registry was closed.
    func add(_ output: AtomicOutput) -> Bool {
      state.withLock { state in
        guard !state.isClosed else { return false }
        state.entries[ObjectIdentifier(output)] = Entry(output: output)
        state.names.append((output.temporaryPath, output.path))
        return true
      }
    }

    func remove(_ output: AtomicOutput) {
      state.withLock { _ = $0.entries.removeValue(forKey: ObjectIdentifier(output)) }
    }

    var names: [(temporary: String, final: String)] { state.withLock { $0.names } }

    package func discardAll() {
      let outputs = state.withLock { state in
        state.isClosed = true
        return state.entries.values.compactMap(\.output)
      }
      for output in outputs { output.discard() }
    }
  }

  /// Discards every output of this process that is not committed, and lets no new one begin: for a thread that handles
  /// signals, just before the process ends. (It is not for a signal handler itself.)
  ///
  /// Waits for a `commit` that has begun.
  public static func discardAll() { Registry.shared.discardAll() }

  /// A message with the names that outputs of this process were to get in place of their temporary ones.
  public static func withFinalNames(_ message: String) -> String {
    Registry.shared.names.reduce(message) { message, name in
      message.split(separator: escaped(name.temporary, limit: 4096), omittingEmptySubsequences: false)
        .joined(separator: escaped(name.final, limit: 4096))
    }
  }
}
