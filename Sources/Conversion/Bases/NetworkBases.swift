import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Recipes
import Synchronization
import TensorNetworks

/// The bases of the chains of a network: of each space the eigenvectors of its members' second moments, or an order of its
/// neurons, and of each side the scales in which its own second moment has the diagonal 1.
struct NetworkBases: Sendable {
  /// The bases of one matrix.
  struct OfMatrix: Sendable {
    let rows: Basis
    let columns: Basis
    /// The names of their cores.
    let rowRecord: OperatorRecord.BasisRecord
    let columnRecord: OperatorRecord.BasisRecord

    /// The numbers of their cores, with their names.
    var cores: [(name: String, values: Values)] {
      [(rows, rowRecord), (columns, columnRecord)].flatMap { basis, record -> [(String, Values)] in
        let rotation: Values? =
          switch basis.rotation {
          case .identity: nil
          case .orthogonal(let matrix): .numbers(matrix.elements)
          case .permutation(let places): .indices(places)
          }
        return [
          (record.basis ?? record.permutation).flatMap { name in rotation.map { (name, $0) } },
          record.scale.flatMap { name in basis.scale.map { (name, .numbers($0)) } },
        ].compactMap(\.self)
      }
    }
  }

  enum Values: Sendable {
    case numbers([Double])
    case indices([Int])

    var count: Int {
      switch self {
      case .numbers(let values): values.count
      case .indices(let values): values.count
      }
    }
  }

  private let matrices: [TensorName: OfMatrix]

  subscript(matrix: String) -> OfMatrix? { matrices[TensorName(matrix)] }

  /// The numbers of all bases and scales, those that are shared once.
  var parameterCount: Int {
    var counts: [TensorName: Int] = [:]
    for bases in matrices.values { for (name, values) in bases.cores { counts[TensorName(name)] = values.count } }
    return counts.values.reduce(0, +)
  }

  /// - Parameters:
  ///   - matrices: those of a network that may become chains.
  ///   - rules: spaces that are not what the names of the matrices say.
  /// - Throws: `ConversionError.mismatch` for statistics that are not of these matrices,
  ///   `ConversionError.badMember` for a rule for none of them.
  init(
    of matrices: [WeightMatrix], _ statistics: CalibrationStatistics, rules: [SpaceRule] = [], jobs: Int
  ) throws {
    // With several threads the eigenvectors would hang on how many there are.
    BLASThreads.use(1)
    var metrics: [(matrix: WeightMatrix, rows: Metric.Side, columns: Metric.Side)] = []
    let candidates = matrices.filter { $0.expert == nil && $0.shape.siteCount > 2 }
    for matrix in candidates {
      let metric = try statistics.metric(of: matrix.info, rows: matrix.rows, columns: matrix.columns)
      if case .sides(let rows, let columns) = metric { metrics.append((matrix, rows, columns)) }
    }
    for rule in rules where !metrics.contains(where: { matches(rule.glob, $0.matrix.name) }) {
      throw ConversionError.badMember(
        member: "spaces", value: rule.glob, reason: "matches no matrix that may become a chain and has statistics")
    }
    let spaces = NetworkSpaces(metrics.map(\.matrix), rules: rules) {
      statistics.inputs(of: $0.name, orientation: $0.info.orientation)
    }
    var sums: [NetworkSpaces.Space: Sum] = [:]
    for (matrix, rows, columns) in metrics {
      guard let space = spaces.spaces(of: matrix.name) else { continue }
      sums[space.rows, default: Sum(space.rows, size: matrix.rows)].add(rows)
      sums[space.columns, default: Sum(space.columns, size: matrix.columns)].add(columns)
    }
    let found = Mutex<[NetworkSpaces.Space: Basis.Rotation]>([:])
    try forEachInParallel(sums.sorted { $1.value.size < $0.value.size }, jobs: jobs) { space, sum in
      let rotation = try sum.rotation()
      found.withLock { $0[space] = rotation }
    }
    let rotations = found.withLock { $0 }
    var result: [TensorName: OfMatrix] = [:]
    for (matrix, rows, columns) in metrics {
      guard let space = spaces.spaces(of: matrix.name) else { continue }
      let ridges = statistics.ridges(of: matrix.info, for: .sitesInBases)
      let rowBasis = Basis.normalizing(
        rows.regularized(ridges.rows), in: rotations[space.rows] ?? .identity)
      let columnBasis = Basis.normalizing(
        columns.regularized(ridges.columns), in: rotations[space.columns] ?? .identity)
      result[TensorName(matrix.name)] = OfMatrix(
        rows: rowBasis, columns: columnBasis,
        rowRecord: Self.record(rowBasis, space.rows, scale: statistics.sideName(.rows, of: matrix.name)),
        columnRecord: Self.record(columnBasis, space.columns, scale: statistics.sideName(.columns, of: matrix.name)))
    }
    self.matrices = result
  }

  private static func record(_ basis: Basis, _ space: NetworkSpaces.Space, scale: String) -> OperatorRecord.BasisRecord
  {
    let name =
      switch space {
      case .rotated(let name), .sorted(let name): name
      }
    return switch basis.rotation {
    case .identity: OperatorRecord.BasisRecord(scale: basis.scale.map { _ in "\(scale).scale" })
    case .orthogonal:
      OperatorRecord.BasisRecord(basis: "\(name).basis", scale: basis.scale.map { _ in "\(scale).scale" })
    case .permutation:
      OperatorRecord.BasisRecord(permutation: "\(name).permutation", scale: basis.scale.map { _ in "\(scale).scale" })
    }
  }

  /// The second moments of the sides of one space, each divided by its trace, added up.
  private struct Sum: Sendable {
    private let isRotated: Bool
    let size: Int
    private var diagonal: [Double]
    private var matrix: Matrix<Double>?

    init(_ space: NetworkSpaces.Space, size: Int) {
      isRotated = if case .rotated = space { true } else { false }
      self.size = size
      diagonal = Array(repeating: 0, count: size)
    }

    mutating func add(_ side: Metric.Side) {
      let trace = side.meanDiagonal * Double(size)
      guard trace > 0, side != .identity else { return }
      if isRotated, case .full(let moment) = side {
        var sum = matrix ?? Matrix(rows: size, columns: size, elements: Array(repeating: 0, count: size * size))
        sum.subtract(moment.scaled(columnsBy: Array(repeating: -1 / trace, count: size)))
        matrix = sum
      } else {
        let values = Basis.identity.diagonal(of: side)
        for index in diagonal.indices { diagonal[index] += values[index] / trace }
      }
    }

    func rotation() throws -> Basis.Rotation {
      guard var matrix else { return diagonal.contains { $0 > 0 } ? Basis.Rotation(sorting: diagonal) : .identity }
      for index in diagonal.indices { matrix[index, index] += diagonal[index] }
      return try Basis.Rotation(eigenvectorsOf: matrix)
    }
  }
}

/// Bases that are computed when they are first asked for.
final class CachedBases: Sendable {
  private let cached = Mutex<NetworkBases?>(nil)

  func bases(_ compute: () throws -> NetworkBases) throws -> NetworkBases {
    try cached.withLock { cached in
      if let cached { return cached }
      let bases = try compute()
      cached = bases
      return bases
    }
  }
}

extension CalibrationStatistics {
  /// A name for the second moment of a side: sides that share it have the same.
  fileprivate func sideName(_ axis: Axis, of matrix: String) -> String {
    storedSide(axis, of: matrix) ?? "\(matrix).\(axis.rawValue)"
  }
}
