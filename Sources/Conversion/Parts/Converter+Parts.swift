import Checkpoints
import MPOCheckpoints
import Squeezing

extension Converter {
  /// The tensors of each of `count` parts, in the order of the source. All parts cost about the same; what is tied or linked
  /// stays together.
  func division(of contents: CheckpointContents, _ plan: SqueezePlan, into count: Int) -> [[Int]] {
    let holders = LinkHolders(of: plan, in: contents)
    var groups: [TensorName: Int] = [:]
    var costs: [Double] = []
    let hasMetric = hasMetric
    let groupOf = contents.tensors.map { record in
      let holder =
        if case .tied(let other) = record.storage { holders[TensorName(other)] } else {
          holders[TensorName(record.name)]
        }
      let group = groups[holder] ?? costs.count
      groups[holder] = group
      if group == costs.count { costs.append(0) }
      costs[group] += self.costs(of: record, in: contents, hasMetric)
        .reduce(bytesCost(of: record)) { $0 + $1.decomposition }
      return group
    }
    let parts = BalancedParts(of: costs, count: count).parts
    var result = Array(repeating: [Int](), count: count)
    for (index, group) in groupOf.enumerated() { result[parts[group]].append(index) }
    return result
  }

  /// Tells whether errors of the matrix of a name are measured in a metric.
  var hasMetric: (String) -> Bool {
    if mask != nil { return { _ in true } }
    let measured = statistics?.matrices ?? []
    return { measured.contains(TensorName($0)) }
  }

  /// What the matrices of a tensor take; none where it stays dense.
  func costs(
    of record: TensorRecord, in contents: CheckpointContents, _ hasMetric: (String) -> Bool
  ) -> [MatrixCost] {
    (record.blocks?.blocks ?? []).compactMap { terms in
      guard let term = terms.first, let chain = contents.operator(named: term.operator) else { return nil }
      return MatrixCost(
        rows: term.rows?.count ?? chain.rows, columns: term.columns?.count ?? chain.columns, shape: chain.shape,
        isDouble: contents.needsDoublePrecision(record), recipe,
        hasMetric: hasMetric(record.name) || hasMetric(chain.name))
    }
  }

  /// What reading and writing a tensor counts, in operations.
  private func bytesCost(of record: TensorRecord) -> Double {
    if case .tied = record.storage { return 0 }
    return Double(record.info.byteCount) * MatrixCost.operationsPerByte
  }
}
