import Synchronization
import Testing

@testable import LinearAlgebra

@Suite struct ParallelWorkTests {
  private struct Failure: Error, Equatable { let item: Int }

  @Test(arguments: [1, 2, 3, 64])
  func `every item is worked on once`(jobs: Int) throws {
    let counts = Mutex(Array(repeating: 0, count: 100))
    try forEachInParallel(Array(0..<100), jobs: jobs) { item in counts.withLock { $0[item] += 1 } }
    #expect(counts.withLock { $0 } == Array(repeating: 1, count: 100))
  }

  @Test func `nothing to do is done`() throws {
    try forEachInParallel([Int](), jobs: 4) { _ in throw Failure(item: 0) }
  }

  @Test func `one job keeps the order of the list`() throws {
    let seen = Mutex([Int]())
    try forEachInParallel(Array(0..<20).reversed(), jobs: 1) { item in seen.withLock { $0.append(item) } }
    #expect(seen.withLock { $0 } == Array(0..<20).reversed())
  }

  @Test func `the first error ends the work and is thrown`() {
    let seen = Mutex([Int]())
    #expect(throws: Failure(item: 3)) {
      try forEachInParallel(Array(0..<20), jobs: 1) { item in
        seen.withLock { $0.append(item) }
        if item == 3 { throw Failure(item: 3) }
      }
    }
    #expect(seen.withLock { $0 } == [0, 1, 2, 3])
  }
}
