import Checkpoints
import Glibc
import LinearAlgebra
import Synchronization
import TensorNetworks

/// What is prepared of the metrics of a network's matrices for one use and needed again, kept in a spool file between the uses,
/// so that each second moment is decoded, checked and factored once: roots of the sides, and the spectra of the whitened
/// matrices.
///
/// Where the disk has no room, nothing more is kept, and what is missing is prepared again. Safe to use from several threads.
final class PreparedMetrics: Sendable {
  /// Of each second moment, by the name of its tensor; tensors with the same bytes have one in common.
  private let sides: [TensorName: Side]
  private let spectra = Mutex<[TensorName: KeptSpectrum]>([:])
  private let spool: TriangleSpool
  private let keepsSpectra: Bool

  private final class Side: Sendable {
    /// How often it is asked for.
    let uses: Int
    let kept = Mutex<KeptRoot?>(nil)

    init(uses: Int) { self.uses = uses }
  }

  private struct KeptRoot {
    let triangle: KeptTriangle
    let relativeRidge: Double
    let ridge: Double
  }

  private struct KeptSpectrum {
    let reduction: KeptReduction
    let squaredNorm: Double
    let precision: GramPrecision
  }

  /// - Parameters:
  ///   - passes: how often the metric of each matrix is used.
  ///   - folder: where the spool file takes its room.
  init(of statistics: CalibrationStatistics, passes: Int, folder: String) throws {
    let entries = statistics.entries
    let grams = entries.filter { if case .gram = $0.kind { true } else { false } }
    let groups = try Self.groups(of: grams.map(\.tensor), in: statistics.file)
    let sizes = Dictionary(grams.map { (TensorName($0.tensor), $0.shape[0]) }) { first, _ in first }
    var sides: [TensorName: Side] = [:]
    var capacity = 0
    for group in groups {
      let side = Side(uses: passes * group.count)
      for name in group { sides[TensorName(name)] = side }
      if side.uses > 1, let size = sizes[TensorName(group[0])] {
        capacity += TriangleSpool.byteCount(size: size)
      }
    }
    keepsSpectra = passes > 1
    if keepsSpectra {
      // The shorter side of a matrix is at most as long as any side that the file speaks of.
      for (_, entries) in Dictionary(grouping: entries, by: { TensorName($0.matrix) }) {
        capacity += TriangleSpool.byteCount(size: entries.compactMap { $0.shape.min() }.min() ?? 0)
      }
    }
    self.sides = sides
    spool = TriangleSpool(in: folder, capacity: capacity)
  }

  /// The root of a second moment; `prepare` makes it, once for all that need it at the same time.
  /// - Parameters:
  ///   - tensor: the name of the second moment.
  ///   - ridge: relative to the mean of the diagonal.
  func root(of tensor: String, ridge: Double, _ prepare: () throws -> MetricRoot) throws -> MetricRoot {
    guard let side = sides[TensorName(tensor)], side.uses > 1 else { return try prepare() }
    let (kept, root) = try side.kept.withLock { kept -> (KeptRoot?, MetricRoot?) in
      if let kept, kept.relativeRidge == ridge { return (kept, nil) }
      let root = try prepare()
      if kept == nil, case .triangular(let factor) = root.factor {
        kept = spool.keep(factor.lower).map { KeptRoot(triangle: $0, relativeRidge: ridge, ridge: root.ridge) }
      }
      return (nil, root)
    }
    if let root { return root }
    guard let kept else { return try prepare() }
    return MetricRoot(factor: .triangular(CholeskyFactor(lower: try kept.triangle.read())), ridge: kept.ridge)
  }

  /// The spectrum of a whitened matrix whose shorter side is `size`, if it was kept.
  func spectrum(of matrix: String, size: Int) throws -> WhitenedSpectrum? {
    guard let kept = spectra.withLock({ $0[TensorName(matrix)] }), kept.reduction.reflections.size == size
    else { return nil }
    return WhitenedSpectrum(
      reduction: try kept.reduction.read(), squaredNorm: kept.squaredNorm, precision: kept.precision)
  }

  func keep(_ spectrum: WhitenedSpectrum, of matrix: String) {
    guard keepsSpectra, let reduction = spool.keep(spectrum.reduction) else { return }
    let kept = KeptSpectrum(reduction: reduction, squaredNorm: spectrum.squaredNorm, precision: spectrum.precision)
    spectra.withLock { $0[TensorName(matrix)] = kept }
  }

  /// Tensors grouped by their bytes. Only tensors that begin alike are read to the end.
  private static func groups(of names: [String], in file: any DenseCheckpoint) throws -> [[String]] {
    struct Beginning: Hashable {
      let dtype: DType
      let shape: [Int]
      let bytes: [UInt8]
    }
    var groups: [Beginning: [[TensorInfo]]] = [:]
    for tensor in names.compactMap({ file.tensor(named: $0) }) {
      let beginning = Beginning(
        dtype: tensor.dtype, shape: tensor.shape,
        bytes: try file.withBytes(of: tensor, in: 0..<min(4096, tensor.byteCount)) { Array($0) })
      var candidates = groups[beginning] ?? []
      let same = try candidates.firstIndex { group in
        try file.withBytes(of: group[0]) { a in
          try file.withBytes(of: tensor) { b in
            a.count == b.count && (a.isEmpty || memcmp(a.baseAddress!, b.baseAddress!, a.count) == 0)
          }
        }
      }
      if let same { candidates[same].append(tensor) } else { candidates.append([tensor]) }
      groups[beginning] = candidates
    }
    return groups.values.joined().map { $0.map(\.name) }
  }
}
