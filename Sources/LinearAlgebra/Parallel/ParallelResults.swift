import Synchronization

/// One slot for the result of each item of a parallel loop.
package final class ParallelResults<Value: Sendable>: Sendable {
  private let slots: Mutex<[Value?]>

  package init(count: Int) {
    slots = Mutex(Array(repeating: nil, count: count))
  }

  package subscript(index: Int) -> Value? {
    get { slots.withLock { $0[index] } }
    set { slots.withLock { $0[index] = newValue } }
  }
}
