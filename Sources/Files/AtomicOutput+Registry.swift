import Synchronization

extension AtomicOutput {
  /// The outputs of a process that are neither committed nor discarded.
  package final class Registry: Sendable {
    package static let shared = Registry()

    private struct State {
      var temporaries: [ObjectIdentifier: Temporary] = [:]
      /// Of all outputs that were ever begun.
      var names: [(temporary: String, final: String)] = []
      var isClosed = false
    }
    private let state = Mutex(State())

    package init() {}

    /// Begins an output under the lock, so that `discardAll` misses none.
    func begin(_ path: String, _ make: () throws(FileError) -> Temporary) throws -> Temporary {
      try state.withLock { state in
        guard !state.isClosed else {
          throw FileError.io(file: path, operation: "create it", reason: "the run was interrupted")
        }
        let temporary = try make()
        state.temporaries[ObjectIdentifier(temporary)] = temporary
        state.names.append((temporary.path, path))
        return temporary
      }
    }

    func remove(_ temporary: Temporary) {
      state.withLock { _ = $0.temporaries.removeValue(forKey: ObjectIdentifier(temporary)) }
    }

    var names: [(temporary: String, final: String)] { state.withLock { $0.names } }

    package func discardAll() {
      let temporaries = state.withLock { state in
        state.isClosed = true
        return state.temporaries.values
      }
      // One that is being discarded already is waited for.
      for temporary in temporaries { temporary.discard() }
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
