import Checkpoints
import LinearAlgebra
import MPOCheckpoints
import Recipes
import TensorNetworks

/// What a mask leaves of one matrix: LPAF (arXiv 2306.14152) finds that pruning by first-order scores leaves matrices of low rank.
public struct MaskedMatrix: Sendable, Encodable {
  /// The name of the tensor.
  public let name: String
  /// The number of rows, I.
  public let rows: Int
  /// The number of columns, J.
  public let columns: Int
  /// Elements.
  public let kept: Int
  /// Rows of which nothing is kept.
  public let emptyRows: Int
  /// Columns of which nothing is kept.
  public let emptyColumns: Int
  /// Singular values of `W ⊙ M` above `rankTolerance` of the largest.
  public let rank: Int
  /// The least rank whose best factorisation has at least 0.9 of the squared norm of `W ⊙ M`.
  public let energyRank: Int
  /// That of `W`; nil where the mask is of its zeros.
  public let sourceEnergyRank: Int?

  /// Singular values below this part of the largest do not count to the rank.
  public static let rankTolerance = 1e-6

  enum CodingKeys: String, CodingKey {
    case name, rows, columns, kept, rank
    case emptyRows = "empty_rows"
    case emptyColumns = "empty_columns"
    case energyRank = "rank_90"
    case sourceEnergyRank = "source_rank_90"
  }
}

extension SourceNetwork {
  /// What a mask leaves of the matrices of a checkpoint that would be decomposed by default, in parallel.
  /// - Parameters:
  ///   - checkpoint: the source of the matrices.
  ///   - file: nil for the zeros of the matrices.
  ///   - jobs: matrices that are worked on at the same time.
  /// - Throws: `ConversionError` for a mask that does not fit the checkpoint or changes nothing.
  public static func masked(
    _ checkpoint: any DenseCheckpoint, by file: MaskFile?, jobs: Int
  ) throws -> (matrices: [MaskedMatrix], warning: String?) {
    var network = try SourceNetwork(checkpoint, selection: TensorSelection())
    let mask = NetworkMask(file: file)
    network.mask = mask
    let warning = try file?.check(against: network)
    try mask.requireEffect(on: network)
    let results = ParallelResults<MaskedMatrix>(count: network.matrices.count)
    let whole = network
    BLASThreads.use(1)
    try forEachInParallel(Array(network.matrices.indices), jobs: jobs) { index in
      results[index] = try whole.masked(whole.matrices[index], by: mask)
    }
    return (network.matrices.indices.compactMap { results[$0] }, warning)
  }

  private func masked(_ matrix: WeightMatrix, by mask: NetworkMask) throws -> MaskedMatrix {
    func values(in checkpoint: any DenseCheckpoint) throws -> [Double] {
      try checkpoint.withMatrix(
        of: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns
      ) { (view: MatrixView<Double>) in
        try Matrix.singularValues(of: view.elements, rows: view.rows, columns: view.columns)
      }
    }
    let kept = try weights.withMatrix(
      of: matrix.tensor, expert: matrix.expert, rows: matrix.rows, columns: matrix.columns
    ) { (view: MatrixView<Double>) in try mask.kept(of: matrix.tensor, expert: matrix.expert, view) }
    let (rows, columns) = (matrix.rows, matrix.columns)
    let values = (try values(in: weights), mask.file == nil ? nil : try values(in: checkpoint))
    return MaskedMatrix(
      name: matrix.name, rows: rows, columns: columns, kept: kept.count { $0 != 0 },
      emptyRows: (0..<rows).count { row in kept[row * columns..<(row + 1) * columns].allSatisfy { $0 == 0 } },
      emptyColumns: (0..<columns).count { column in
        (0..<rows).allSatisfy { kept[$0 * columns + column] == 0 }
      },
      rank: values.0.count { $0 > MaskedMatrix.rankTolerance * (values.0.first ?? 0) },
      energyRank: Self.energyRank(values.0), sourceEnergyRank: values.1.map(Self.energyRank))
  }

  private static func energyRank(_ values: [Double]) -> Int {
    let total = values.reduce(0) { $0 + $1 * $1 }
    var sum = 0.0
    for (index, value) in values.enumerated() {
      if sum >= 0.9 * total { return index }
      sum += value * value
    }
    return values.count
  }
}

extension MaskFile {
  /// A checkpoint with zeros where the mask has.
  public func applied(to checkpoint: any DenseCheckpoint) -> any DenseCheckpoint {
    MaskedCheckpoint(base: checkpoint, mask: self)
  }
}
