import Checkpoints
import LinearAlgebra
import TensorNetworks
import Testing

@testable import MPOCheckpoints

@Suite struct CheckpointTotalsTests {
  /// An operator of bonds 3 and 2, a matrix, a vector and a scalar in single precision, and a vector of integers.
  private func contents(_ gauge: Gauge, auxiliary: ArrayEncoding? = nil) throws -> CheckpointContents {
    let shape = try MPOShape(rowFactors: [2, 2, 2], columnFactors: [3, 2, 2])
    let (chain, cores) = OperatorRecord.ordinary(
      name: "w", MatrixSplit(rows: 7, columns: 12, shape: shape), bonds: [3, 2], gauge: gauge, dtype: .f32)
    var contents = CheckpointContents()
    contents.append(
      TensorRecord(
        name: "w", dtype: .f32, shape: [7, 12], orientation: .outputInput, storage: .blocks(BlockMatrix(whole: chain))),
      operators: [chain],
      cores: cores.map { core in
        guard let auxiliary, core.role == .auxiliary else { return core }
        return CoreRecord(name: core.name, role: core.role, shape: core.shape, encoding: auxiliary)
      })
    let dense: [(name: String, dtype: DType, shape: [Int])] = [
      ("matrix", .f32, [4, 3]), ("vector", .f32, [7]), ("scalar", .f32, []), ("positions", .i64, [5]),
    ]
    for tensor in dense {
      contents.append(TensorRecord(dense: TensorInfo(name: tensor.name, dtype: tensor.dtype, shape: tensor.shape)))
    }
    return contents
  }

  @Test(arguments: Gauge.allCases)
  func `trainable are the whole auxiliary cores and the vectors`(gauge: Gauge) throws {
    let totals = CheckpointManifest.Totals(try contents(gauge))
    #expect(totals.parametersTrainable == (1 * 2 * 3 * 3 + 2 * 2 * 2 * 1) + 7 + 1)
  }

  @Test func `auxiliary cores in integers of groups are not trainable`() throws {
    let integers = try #require(IntegerGroups("int4"))
    let auxiliary = ArrayEncoding(.grouped(integers, columns: 2))
    #expect(CheckpointManifest.Totals(try contents(.canonical, auxiliary: auxiliary)).parametersTrainable == 7 + 1)
  }

  @Test func `training state is not trainable`() throws {
    var contents = try contents(.canonical)
    var momentum = TensorRecord(dense: TensorInfo(name: "vector.m", dtype: .f32, shape: [7]))
    momentum.isTrainingState = true
    contents.append(momentum)
    #expect(CheckpointManifest.Totals(contents).parametersTrainable == 26 + 7 + 1)
  }
}
