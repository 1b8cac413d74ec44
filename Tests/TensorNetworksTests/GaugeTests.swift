import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct GaugeTests {
  static let publishedShapes: [(rowFactors: [Int], columnFactors: [Int])] = [
    ([3, 4, 4, 4, 4], [4, 4, 8, 6, 4]),
    ([4, 4, 8, 6, 4], [3, 4, 4, 4, 4]),
    ([3, 4, 4, 4, 4], [4, 4, 4, 4, 3]),
    ([5, 10, 10, 10, 6], [2, 2, 4, 4, 2]),
  ]

  @Test func `768 × 3072 in its published shape has 2,544,016 numbers, 184,720 of them redundant`() throws {
    let shape = try MPOShape(rowFactors: [3, 4, 4, 4, 4], columnFactors: [4, 4, 8, 6, 4])
    #expect(shape.storedCount(bonds: shape.fullBonds, gauge: .canonical) == 2_544_016)
    #expect(shape.storedCount(bonds: shape.fullBonds, gauge: .compact) == 2_544_016 - 184_720)
    #expect(shape.storedCount(bonds: shape.fullBonds, gauge: .compact) == 768 * 3072)
    #expect(shape.storedCount(bonds: shape.fullBonds, gauge: .spectral) == 2_544_016 + 192)
  }

  @Test(arguments: publishedShapes)
  func `at full bonds a published shape stores as many numbers as the matrix has, bit by bit`(
    rowFactors: [Int], columnFactors: [Int]
  ) throws {
    let shape = try MPOShape(rowFactors: rowFactors, columnFactors: columnFactors)
    var random = RandomOperators(seed: 1)
    let w = random.matrix(rows: shape.rows, columns: shape.columns, Float.self)
    let compact = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: shape.fullBonds) }.compacted()
    #expect(compact.storedCount == shape.rows * shape.columns)
    #expect(compact.mpo.bonds == shape.fullBonds)
    #expect(compact.mpo.matrix(rows: shape.rows, columns: shape.columns) == w)
  }

  @Test func `at full bonds every shape stores as many numbers as the padded matrix has, bit by bit`() throws {
    for seed in 1...200 {
      var random = RandomOperators(seed: seed)
      let shape = try random.shape()
      let (rows, columns) = (random.number(1...shape.rows), random.number(1...shape.columns))
      #expect(shape.storedCount(bonds: shape.fullBonds, gauge: .compact) == shape.rows * shape.columns)
      var w = random.matrix(rows: rows, columns: columns, Float.self)
      // What a product would change.
      for (place, value) in [-0.0, Float.leastNonzeroMagnitude, 1e38, 1e-38].enumerated() where place < w.elements.count
      {
        w.elements[place] = value
      }
      let exact = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: shape.fullBonds) }
      for mpo in [exact, try exact.compacted().mpo, try exact.canonicalized()] {
        let restored = mpo.matrix(rows: rows, columns: columns)
        #expect(restored.elements.map(\.bitPattern) == w.elements.map(\.bitPattern), "seed \(seed)")
      }
      let wide = w.converted(to: Double.self)
      let double = try wide.withView { try MPO(decomposing: $0, shape: shape, bonds: shape.fullBonds) }.compacted()
      let restored = double.mpo.matrix(rows: rows, columns: columns)
      #expect(restored.elements.map(\.bitPattern) == wide.elements.map(\.bitPattern), "seed \(seed)")
    }
  }

  @Test(arguments: RandomOperators.Content.allCases, Gauge.allCases)
  func `an operator is the same in every gauge`(content: RandomOperators.Content, gauge: Gauge) throws {
    for seed in 1...60 {
      var random = RandomOperators(seed: seed)
      let shape = try random.shape()
      let bonds = random.bonds(shape)
      let double = random.mpo(shape, bonds: bonds, content, Double.self)
      try check(double, gauge, tolerance: 1e-13, "seed \(seed)")
      try check(double.converted(to: Float.self), gauge, tolerance: 2e-6, "seed \(seed)")
    }
  }

  @Test(arguments: Gauge.allCases)
  func `a truncated matrix is the same operator in every gauge`(gauge: Gauge) throws {
    for seed in 1...60 {
      var random = RandomOperators(seed: seed)
      let shape = try random.shape()
      let bonds = random.bonds(shape)
      let w = random.matrix(rows: random.number(1...shape.rows), columns: random.number(1...shape.columns), Double.self)
      try checkDecomposition(of: w, shape, bonds, gauge, tolerance: 1e-13, "seed \(seed)")
      try checkDecomposition(of: w.converted(to: Float.self), shape, bonds, gauge, tolerance: 1e-6, "seed \(seed)")
    }
  }

  // Seven and six sites, cut on both sides and on each: pivots next to identities and on truncated cores.
  @Test(arguments: [[3, 4, 8, 12, 4, 2], [4, 16, 40, 30, 9, 2], [4, 16, 64, 50, 8, 4], [4, 16, 64, 64, 16, 3]])
  func `a long chain is the same operator in every gauge`(bonds: [Int]) throws {
    var random = RandomOperators(seed: 6)
    let shape = try MPOShape(rowFactors: [2, 2, 2, 2, 2, 2, 2], columnFactors: [2, 2, 2, 4, 2, 2, 2])
    let w = random.matrix(rows: 120, columns: 250, Double.self)
    for gauge in Gauge.allCases {
      try checkDecomposition(of: w, shape, shape.limitedBonds(bonds), gauge, tolerance: 1e-13, "")
      try checkDecomposition(
        of: w.converted(to: Float.self), shape, shape.limitedBonds(bonds), gauge, tolerance: 1e-6, "")
    }
  }

  @Test(arguments: [1e-30, 1e-15, 1e15, 1e30], Gauge.allCases)
  func `magnitudes that can't be squared in single precision stay`(magnitude: Double, gauge: Gauge) throws {
    for seed in 1...20 {
      var random = RandomOperators(seed: seed)
      let shape = try random.shape()
      let mpo = random.mpo(shape, bonds: random.bonds(shape), .uniform, Double.self)
      // The magnitude in one core, and in a core together with its inverse in another.
      for (first, second) in [(magnitude, 1), (magnitude, 1 / magnitude), (1 / magnitude, magnitude)] {
        let place = random.number(0...(mpo.cores.count - 2))
        let cores = mpo.cores.enumerated().map { index, core in
          let scale = index == place ? first : index == place + 1 ? second : 1
          return MPOCore(shape: core.shape, elements: core.elements.map { $0 * scale })
        }
        let scaled = MPO(shape: shape, cores: cores)
        try check(scaled, gauge, tolerance: 1e-13, "seed \(seed)")
        try check(scaled.converted(to: Float.self), gauge, tolerance: 2e-6, "seed \(seed)")
      }
    }
  }

  @Test(arguments: Gauge.allCases)
  func `what two cores together put into the central one may be beyond single precision`(gauge: Gauge) throws {
    let shape = try MPOShape(rowFactors: [2, 2, 3, 2, 2], columnFactors: [2, 2, 3, 2, 2])
    var random = RandomOperators(seed: 7)
    let mpo = random.mpo(shape, bonds: [3, 8, 9, 2], .uniform, Float.self)
    let scales: [Float] = [1e20, 1e20, 1e-30, 1e-15, 1e-15]
    let cores = zip(mpo.cores, scales).map { core, scale in
      MPOCore(shape: core.shape, elements: core.elements.map { $0 * scale })
    }
    try check(MPO(shape: shape, cores: cores), gauge, tolerance: 2e-6, "")
  }

  @Test(arguments: ["zero", "constant", "rank one", "duplicated rows", "one entry"], Gauge.allCases)
  func `degenerate matrices are the same operator in every gauge`(kind: String, gauge: Gauge) throws {
    let shape = try MPOShape(rowFactors: [2, 4, 2, 2], columnFactors: [3, 2, 4, 2])
    let w = Matrix<Double>(
      rows: 32, columns: 48,
      elements: (0..<(32 * 48)).map { index in
        let (row, column) = (index / 48, index % 48)
        return switch kind {
        case "zero": 0
        case "constant": 3
        case "rank one": Double(row + 1) * Double(column - 7)
        case "duplicated rows": Double((row % 2) * 5 + column)
        default: index == 77 ? 1e-20 : 0
        }
      })
    // The last bonds exceed the numerical rank, and so do the full ones.
    for bonds in [[1, 1, 1], [2, 5, 3], [5, 17, 4], shape.fullBonds] {
      let limited = shape.limitedBonds(bonds)
      try checkDecomposition(of: w, shape, limited, gauge, tolerance: 1e-13, kind)
      try checkDecomposition(of: w.converted(to: Float.self), shape, limited, gauge, tolerance: 1e-6, kind)
    }
  }

  @Test func `bonds above what the bonds before them allow are lowered`() throws {
    let shape = try MPOShape(rowFactors: [2, 2, 2, 2], columnFactors: [2, 2, 2, 1])
    var random = RandomOperators(seed: 3)
    let mpo = random.mpo(shape, bonds: [6, 30, 5], .uniform, Double.self)
    for gauge in Gauge.allCases {
      let gauged = try mpo.gauged(gauge)
      #expect(gauged.mpo.bonds[0] == 4 && gauged.mpo.bonds[2] == 2)
      try check(mpo, gauge, tolerance: 1e-13, "")
    }
    #expect(try mpo.spectra().spectra.map(\.count) == [4, 8, 2].map { min($0, 8) })
  }

  @Test func `cores that are in the gauge already stay unchanged`() throws {
    for seed in 1...30 {
      var random = RandomOperators(seed: seed)
      let shape = try random.shape()
      let mpo = random.mpo(shape, bonds: random.bonds(shape), .uniform, Float.self)
      let compact = try mpo.compacted()
      #expect(try compact.mpo.compacted() == compact)
      let canonical = try mpo.canonicalized()
      #expect(try canonical.canonicalized() == canonical)
    }
  }

  @Test func `the central core in the compact gauge holds elements of the operator`() throws {
    var random = RandomOperators(seed: 5)
    let shape = try MPOShape(rowFactors: [6, 1], columnFactors: [1, 8])
    let mpo = random.mpo(shape, bonds: [4], .uniform, Double.self)
    let compact = try mpo.compacted()
    let w = mpo.wholeMatrix
    let pivots = try #require(compact.pivots[0])
    for (row, pivot) in pivots.enumerated() {
      for column in 0..<8 { #expect(abs(compact.mpo.cores[1].rightUnfolding[row, column] - w[pivot, column]) < 1e-14) }
    }
  }

  @Test func `singular values apart are those of the unfolding at the central bond`() throws {
    for seed in 1...60 {
      var random = RandomOperators(seed: seed)
      let shape = try random.shape()
      let bonds = random.bonds(shape)
      let w = random.matrix(rows: shape.rows, columns: shape.columns, Double.self)
      let double = try w.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds) }
      try checkSingularValues(of: double, tolerance: 1e-12, "seed \(seed)")
      try checkSingularValues(of: double.converted(to: Float.self), tolerance: 1e-6, "seed \(seed)")
      // Cores that were trained.
      let trained = random.mpo(shape, bonds: bonds, .unevenlyScaled, Double.self)
      try checkSingularValues(of: trained, tolerance: 1e-12, "seed \(seed)")
    }
  }

  @Test func `small singular values are not lost in the square of the largest`() throws {
    let shape = try MPOShape(rowFactors: [3, 1], columnFactors: [1, 3])
    let w = Matrix<Double>(rows: 3, columns: 3, elements: [0, 1e-12, 0, 1, 0, 0, 0, 0, 1e-5])
    let mpo = MPO(
      shape: shape,
      cores: [
        MPOCore(shape: [1, 3, 1, 3], elements: w.elements),
        MPOCore(shape: [3, 1, 3, 1], elements: Matrix.identity(3).elements),
      ])
    let values = try #require(try mpo.gauged(.spectral).singularValues)
    for (value, expected) in zip(values, [1, 1e-5, 1e-12]) { #expect(abs(value / expected - 1) < 1e-3) }
  }

  /// That the cores of a matrix are the same operator in a gauge, and so are those decomposed into it at once.
  private func checkDecomposition<Scalar>(
    of matrix: Matrix<Scalar>, _ shape: MPOShape, _ bonds: [Int], _ gauge: Gauge, tolerance: Double, _ comment: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let mpo = try matrix.withView { try MPO(decomposing: $0, shape: shape, bonds: bonds) }
    let gauged = try matrix.withView { try GaugedMPO(decomposing: $0, shape: shape, bonds: bonds, gauge: gauge) }
    try check(mpo, gauge, tolerance: tolerance, comment, sourceLocation: sourceLocation)
    try check(mpo, gauge, gauged, tolerance: tolerance, comment, sourceLocation: sourceLocation)
  }

  /// That `mpo` in a gauge is the same operator, and has what the gauge promises.
  private func check<Scalar>(
    _ mpo: MPO<Scalar>, _ gauge: Gauge, _ known: GaugedMPO<Scalar>? = nil, tolerance: Double, _ comment: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let gauged = try known ?? mpo.gauged(gauge)
    let comment = Comment(rawValue: "\(comment), \(Scalar.self), \(mpo.shape), bonds \(mpo.bonds)")
    let w = mpo.wholeMatrix
    let absorbed = gauged.absorbed
    #expect(absorbed.cores.allSatisfy { $0.elements.allSatisfy(\.isFinite) }, comment, sourceLocation: sourceLocation)
    let error = difference(absorbed.wholeMatrix, w)
    #expect(error <= tolerance * w.norm, "\(error / w.norm): \(comment)", sourceLocation: sourceLocation)
    #expect(gauged.gauge == gauge, comment, sourceLocation: sourceLocation)
    #expect((gauged.singularValues != nil) == (gauge == .spectral), comment, sourceLocation: sourceLocation)
    if mpo.shape.limitedBonds(mpo.bonds) == mpo.bonds {
      #expect(gauged.mpo.bonds == mpo.bonds, comment, sourceLocation: sourceLocation)
    }
    if gauge == .compact {
      expectPivots(gauged, comment, sourceLocation)
    } else {
      #expect(gauged.pivots.allSatisfy { $0 == nil }, comment, sourceLocation: sourceLocation)
      let single = Scalar.self == Float.self
      for (_, unfolding) in gauged.mpo.inwardUnfoldings {
        let deviation = difference(unfolding.transposed() * unfolding, .identity(unfolding.columns))
        #expect(deviation < (single ? 1e-6 : 1e-13), comment, sourceLocation: sourceLocation)
      }
    }
  }

  private func expectPivots<Scalar>(
    _ gauged: GaugedMPO<Scalar>, _ comment: Comment, _ sourceLocation: SourceLocation
  ) {
    var values = gauged.mpo.cores[gauged.mpo.shape.centralIndex].elements.count
    #expect(gauged.pivots[gauged.mpo.shape.centralIndex] == nil, comment, sourceLocation: sourceLocation)
    for (index, unfolding) in gauged.mpo.inwardUnfoldings {
      let pivots = gauged.pivots[index] ?? []
      #expect(pivots.count == unfolding.columns, comment, sourceLocation: sourceLocation)
      #expect(zip(pivots, pivots.dropFirst()).allSatisfy(<), comment, sourceLocation: sourceLocation)
      #expect(
        pivots.enumerated().allSatisfy { column, row in
          (0..<unfolding.columns).allSatisfy { unfolding[row, $0] == ($0 == column ? 1 : 0) }
        }, comment, sourceLocation: sourceLocation)
      #expect(unfolding.elements.allSatisfy { abs($0) <= 2 }, comment, sourceLocation: sourceLocation)
      values += (unfolding.rows - pivots.count) * unfolding.columns
    }
    #expect(values == gauged.storedCount, comment, sourceLocation: sourceLocation)
  }

  private func checkSingularValues<Scalar>(of mpo: MPO<Scalar>, tolerance: Double, _ comment: String) throws {
    let gauged = try mpo.gauged(.spectral)
    let values = try #require(gauged.singularValues)
    let shape = mpo.shape
    let order = SiteOrder(shape, rows: shape.rows, columns: shape.columns)
    let tensor = mpo.wholeMatrix.withView { order.tensor(of: $0) }
    let rows = shape.siteDimensions[...shape.centralBond].reduce(1, *)
    let unfolding = tensor.reshaped(rows: rows, columns: tensor.elements.count / rows)
    let expected = try SingularValueDecomposition(of: unfolding).values
    #expect(values.count == gauged.mpo.bonds[shape.centralBond])
    for (index, value) in expected.enumerated() {
      let found = index < values.count ? values[index] : 0
      #expect(abs(found - value) <= tolerance * expected[0], "\(comment), value \(index)")
    }
    // The central core is an isometry like the cores on the other side of the central bond.
    let central = gauged.mpo.cores[shape.centralIndex].converted(to: Double.self)
    let matrix = shape.centralIndex > 0 ? central.rightUnfolding.transposed() : central.leftUnfolding
    let deviation = difference(matrix.transposed() * matrix, .identity(values.count))
    #expect(deviation < (Scalar.self == Float.self ? 1e-6 : 1e-12), "\(comment)")
  }
}

@Suite struct DeepFactorTests {
  @Test(arguments: [(14, 9), (9, 14), (8, 8)], [3, 4, 6])
  func `deep factors are the same operator, frames isometries, the cores between them equal and diagonal`(
    sides: (Int, Int), sites: Int
  ) throws {
    var generator = SeededGenerator(seed: 4)
    let matrix = Matrix<Double>.random(rows: sides.0, columns: sides.1, using: &generator)
    let shape = MPOShape.lowRank(rows: sides.0, columns: sides.1)
    let plain = try matrix.withView { try MPO(decomposing: $0, shape: shape, bonds: [5]) }
    let deep = try plain.deepened(sites: sites)
    #expect(deep.shape == .factored(rows: sides.0, columns: sides.1, sites: sites) && deep.shape.isDeep)
    #expect(deep.bonds == Array(repeating: 5, count: sites - 1))
    #expect(deep.parameterCount == 5 * (sides.0 + sides.1) + (sites - 2) * 25)
    let (a, b) = (plain.matrix(rows: sides.0, columns: sides.1), deep.matrix(rows: sides.0, columns: sides.1))
    #expect(zip(a.elements, b.elements).allSatisfy { abs($0 - $1) < 1e-10 })
    for frame in [deep.cores[0].leftUnfolding, deep.cores[sites - 1].rightUnfolding.transposed()] {
      let gram = frame.transposed() * frame
      #expect(zip(gram.elements, Matrix<Double>.identity(5).elements).allSatisfy { abs($0 - $1) < 1e-12 })
    }
    for core in deep.cores[1..<(sites - 1)] { #expect(core == deep.cores[1]) }
    let diagonal = (0..<5).map { deep.cores[1].leftUnfolding[$0, $0] }
    #expect(diagonal == diagonal.sorted(by: >) && diagonal[4] > 0)
    // After training they are found again.
    var cores = deep.cores
    cores[1].elements[3] += 0.3
    let trained = MPO(shape: deep.shape, cores: cores)
    for gauge in [Gauge.canonical, .compact, .spectral] {
      let gauged = try trained.gauged(gauge)
      let (c, d) = (
        trained.matrix(rows: sides.0, columns: sides.1), gauged.absorbed.matrix(rows: sides.0, columns: sides.1)
      )
      #expect(zip(c.elements, d.elements).allSatisfy { abs($0 - $1) < 1e-10 })
    }
    #expect(try trained.gauged(.canonical).mpo.cores[1] == trained.gauged(.canonical).mpo.cores[sites - 2])
  }
}
