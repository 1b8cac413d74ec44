import TensorNetworks

/// What a matrix is stored as when it is not dense.
struct OperatorForm: Equatable {
  let shape: MPOShape
  let bonds: [Int]
  let gauge: Gauge
  /// What the cores of a factorisation are rounded to; nil for plain values.
  var integers: IntegerGroups?

  /// The numbers it is stored with.
  var storedCount: Int { shape.storedCount(bonds: bonds, gauge: gauge) }

  /// The bytes it is stored with: numbers, scales and pivots.
  /// - Parameter elementBytes: of a plain value.
  func storedBytes(elementBytes: Int) -> Int {
    let centre = shape.centralIndex
    let cores = shape.coreShapes(bonds: bonds).enumerated().reduce(0) { sum, core in
      let (index, shape) = core
      guard gauge == .compact, index != centre else { return sum + bytes(of: shape, elementBytes) }
      // Pivot rows left of the centre, pivot columns right of it; a core that is an identity has no entries.
      let bond = index < centre ? shape[3] : shape[0]
      let all = shape.reduce(1, *) / bond
      guard all > bond else { return sum }
      return sum + bytes(of: index < centre ? [all - bond, bond] : [bond, all - bond], elementBytes)
        + bond * (all <= 1 << 8 ? 1 : all <= 1 << 16 ? 2 : 4)
    }
    return cores + (gauge == .spectral ? bonds[shape.centralBond] * elementBytes : 0)
  }

  private func bytes(of shape: [Int], _ elementBytes: Int) -> Int {
    let count = shape.reduce(1, *)
    guard let integers else { return count * elementBytes }
    let columns = IntegerGroups.columns(of: shape)
    return integers.byteCount(rows: count / columns, columns: columns)
  }
}
