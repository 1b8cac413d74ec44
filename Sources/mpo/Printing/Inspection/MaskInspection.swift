import Checkpoints
import Conversion
import Files
import Reports

/// What `mpo inspect --mask` prints: what is left of each matrix.
struct MaskInspection {
  let checkpoint: any DenseCheckpoint
  /// nil for the zeros of the matrices.
  let mask: MaskFile?

  func print(json: Bool) throws {
    let (matrices, warning) = try SourceNetwork.masked(checkpoint, by: mask, jobs: WorkOptions.processors)
    if let warning { warn(warning) }
    if json { return try StandardOutput.writeJSON(matrices) }
    var table = Table(
      [
        ("matrix", .left), ("shape", .right), ("kept", .right), ("empty rows", .right), ("columns", .right),
        ("rank", .right), ("for 90 %", .right),
      ] + (mask == nil ? [] : [("unmasked", .right)]))
    for matrix in matrices {
      table.add(
        [
          escaped(matrix.name), sizes([matrix.rows, matrix.columns]),
          fixed(Double(matrix.kept) / Double(matrix.rows * matrix.columns), 4),
        ]
          + ([matrix.emptyRows, matrix.emptyColumns, matrix.rank, matrix.energyRank]
          + [matrix.sourceEnergyRank].compactMap(\.self)).map(grouped))
    }
    let (kept, all) = matrices.reduce((0, 0)) { ($0.0 + $1.kept, $0.1 + $1.rows * $1.columns) }
    try StandardOutput.write(
      """
      \(escaped(checkpoint.path, limit: 4096)): masked by \(mask.map { escaped($0.path, limit: 4096) } ?? "its zeros")

      \(table.text)
      kept        \(grouped(kept)) of \(grouped(all)) elements (\(fixed(Double(kept) / Double(max(1, all)), 4)))
      rank        singular values above \(MaskedMatrix.rankTolerance) of the largest; 'for 90 %': the least rank with so much of \
      the squared norm\(mask == nil ? "" : "; 'unmasked' is that of the whole matrix")

      """)
  }
}
