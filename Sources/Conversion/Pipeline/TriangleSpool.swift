import Files
import LinearAlgebra
import Synchronization

/// Triangular matrices in a spool file, in double precision. Where the disk has no room, nothing more is kept. Safe to use from
/// several threads.
final class TriangleSpool: Sendable {
  private struct State {
    var file: SpoolFile?
    var end = 0
    var isFull = false
  }

  private let folder: String
  private let capacity: Int
  private let state = Mutex(State())

  /// - Parameters:
  ///   - folder: where the spool file takes its room.
  ///   - capacity: the bytes of everything that may be kept.
  init(in folder: String, capacity: Int) { (self.folder, self.capacity) = (folder, capacity) }

  /// What a triangle takes.
  static func byteCount(size: Int) -> Int { size * (size + 1) / 2 * MemoryLayout<Double>.size }

  /// Where it is; nil when there is no room for it.
  func keep(_ triangle: LowerTriangle) -> KeptTriangle? {
    let byteCount = Self.byteCount(size: triangle.size)
    let kept = state.withLock { state -> KeptTriangle? in
      guard !state.isFull, state.end + byteCount <= capacity else { return nil }
      if state.file == nil { state.file = try? SpoolFile(in: folder, byteCount: capacity) }
      guard let file = state.file else {
        state.isFull = true
        return nil
      }
      defer { state.end += byteCount }
      return KeptTriangle(file: file, range: state.end..<(state.end + byteCount), size: triangle.size)
    }
    guard let kept else { return nil }
    do {
      try triangle.packed.withUnsafeBytes { try kept.file.write($0, at: kept.range.lowerBound) }
      return kept
    } catch {
      state.withLock { $0.isFull = true }
      return nil
    }
  }

  /// Where a tridiagonal form is; nil when there is no room for it.
  func keep(_ reduction: TridiagonalReduction) -> KeptReduction? {
    keep(reduction.reflections).map { KeptReduction(reflections: $0, scales: reduction.scales) }
  }
}

/// A lower triangle in a spool file.
struct KeptTriangle: Sendable {
  fileprivate let file: SpoolFile
  fileprivate let range: Range<Int>
  let size: Int

  func read() throws -> LowerTriangle {
    try file.withBytes(in: range) {
      LowerTriangle(size: size, packed: $0.withMemoryRebound(to: Double.self) { Array($0) })
    }
  }
}

/// A tridiagonal form in a spool file.
struct KeptReduction: Sendable {
  let reflections: KeptTriangle
  fileprivate let scales: [Double]

  func read() throws -> TridiagonalReduction {
    TridiagonalReduction(reflections: try reflections.read(), scales: scales)
  }
}
