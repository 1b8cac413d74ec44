import Dispatch
import Synchronization

/// Runs `body` for every item on up to `jobs` threads, in order of the list, and returns when all are done.
/// - Throws: the first error, after the items already begun have ended; the others are not begun.
package func forEachInParallel<Item: Sendable>(
  _ items: [Item], jobs: Int, _ body: @Sendable (Item) throws -> Void
) throws {
  let state = Mutex(LoopState())
  DispatchQueue.concurrentPerform(iterations: max(1, min(jobs, items.count))) { _ in
    while true {
      let item: Item? = state.withLock { state in
        guard state.failure == nil, state.next < items.count else { return nil }
        defer { state.next += 1 }
        return items[state.next]
      }
      guard let item else { return }
      do {
        try body(item)
      } catch {
        state.withLock { if $0.failure == nil { $0.failure = error } }
      }
    }
  }
  if let failure = state.withLock({ $0.failure }) { throw failure }
}

/// What the threads of a parallel loop share.
private struct LoopState {
  var next = 0
  var failure: (any Error)?
}
