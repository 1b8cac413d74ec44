import TensorNetworks

/// What a matrix is stored as when it is not dense.
struct OperatorForm: Equatable {
  let shape: MPOShape
  let bonds: [Int]
  let gauge: Gauge

  var storedCount: Int { shape.storedCount(bonds: bonds, gauge: gauge) }
}
