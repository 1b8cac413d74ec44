import Dispatch
import Synchronization

/// How many threads of the parallel loops that run have no item.
private let idleThreads = Mutex(0)

/// Runs `body` for every item on up to `jobs` threads, in order of the list, and returns when all are done. Threads without an
/// item help with the large matrices of the others (`mapInIdleThreads`).
/// - Throws: the first error, after the items already begun have ended; the others are not begun.
package func forEachInParallel<Item: Sendable>(
  _ items: [Item], jobs: Int, _ body: @Sendable (Item) throws -> Void
) throws {
  let state = Mutex(LoopState())
  let workers = max(1, min(jobs, items.count))
  idleThreads.withLock { $0 += jobs - workers }
  defer { idleThreads.withLock { $0 -= jobs } }
  DispatchQueue.concurrentPerform(iterations: workers) { _ in
    defer { idleThreads.withLock { $0 += 1 } }
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

/// The results of `body` for the parts 0 ..< `count` of the work on one matrix, on this thread and on those that the parallel loop
/// around it has no item for. How a matrix is cut into parts must not depend on them, so that the result does not either.
package func mapInIdleThreads<Result: Sendable>(_ count: Int, _ body: @Sendable (Int) -> Result) -> [Result] {
  let helpers = idleThreads.withLock { idle in
    let taken = max(0, min(idle, count - 1))
    idle -= taken
    return taken
  }
  guard helpers > 0 else { return (0..<count).map(body) }
  defer { idleThreads.withLock { $0 += helpers } }
  let results = ParallelResults<Result>(count: count)
  let next = Atomic(0)
  DispatchQueue.concurrentPerform(iterations: helpers + 1) { _ in
    while true {
      let part = next.add(1, ordering: .relaxed).oldValue
      guard part < count else { return }
      results[part] = body(part)
    }
  }
  return (0..<count).compactMap { results[$0] }
}
