import LinearAlgebra

/// How long cores are refined.
public struct RefinementOptions: Sendable, Equatable {
  /// Steps of L-BFGS at most.
  public var maximumSteps = 300
  /// Stops when ten steps together lower the squared error by less than this part of it.
  public var tolerance = 2e-4

  /// At most 300 steps, ended early at a tolerance of 2e-4.
  public init() {}

  /// For cores in bases, which start nearer to the optimum: fewer steps for matrices so large that steps take long.
  package func inBases(rows: Int, columns: Int) -> RefinementOptions {
    var options = self
    // What a step takes grows with the products of the metric.
    let affordable = Int(1e10 / (Double(rows) * Double(columns) * Double(rows + columns)))
    options.maximumSteps = min(maximumSteps, max(36, affordable))
    return options
  }
}

extension MPO {
  /// Lowers the error in a metric by moving all cores, bonds unchanged: preconditioned L-BFGS on `‖W−MPO‖²` from these
  /// cores.
  ///
  /// Monotone: the result is never worse than the start. Deterministic. Each step costs two products of the size of the
  /// metric and a few contractions; memory about 20 times the cores and four times the matrix.
  /// - Parameters:
  ///   - matrix: the matrix, `[I, J]`.
  ///   - metric: regularised.
  ///   - options: how long to go on.
  public func refined(
    toward matrix: MatrixView<Scalar>, metric: Metric, options: RefinementOptions = RefinementOptions()
  ) -> MPO {
    var objective = RefinementObjective(shape: shape, bonds: bonds, target: matrix, metric: metric)
    let start = cores.flatMap(\.elements)
    let result = LBFGS<Scalar>(memory: 8).minimize(
      start, options: options, precondition: { objective.precondition($0) }, { objective.evaluate($0) })
    return objective.mpo(result)
  }
}

/// The squared error in a metric as a function of all elements of all cores.
private struct RefinementObjective<Scalar: LinearAlgebraScalar> {
  private let shape: MPOShape
  private let coreShapes: [[Int]]
  private let order: SiteOrder
  private let target: Matrix<Scalar>
  private let metric: AppliedMetric<Scalar>
  private var preconditioner: CorePreconditioner<Scalar>?
  private var evaluations = 0

  init(shape: MPOShape, bonds: [Int], target: MatrixView<Scalar>, metric: Metric) {
    self.shape = shape
    coreShapes = shape.coreShapes(bonds: bonds)
    order = SiteOrder(shape, rows: target.rows, columns: target.columns)
    self.target = Matrix(rows: target.rows, columns: target.columns, elements: Array(target.elements))
    self.metric = AppliedMetric(metric)
  }

  func mpo(_ point: [Scalar]) -> MPO<Scalar> { MPO(shape: shape, cores: cores(point)) }

  private func cores(_ point: [Scalar]) -> [MPOCore<Scalar>] {
    var place = 0
    return coreShapes.map { shape in
      let count = shape.reduce(1, *)
      defer { place += count }
      return MPOCore(shape: shape, elements: Array(point[place..<(place + count)]))
    }
  }

  /// The preconditioner lags behind the point by a few evaluations: it changes slowly, and costs about half of one.
  func precondition(_ gradient: [Scalar]) -> [Scalar] { preconditioner?.applied(to: gradient) ?? gradient }

  /// The value and the gradient.
  mutating func evaluate(_ point: [Scalar]) -> (value: Double, gradient: [Scalar]) {
    let cores = cores(point)
    let centre = shape.centralIndex
    // Contractions of the cores left of each bond `[∏, d]` and right of it `[d, ∏]`.
    var left = [Matrix<Scalar>.identity(1)]
    for core in cores[..<centre] {
      let last = left[left.count - 1]
      left.append(
        (last * core.rightUnfolding).reshaped(
          rows: last.rows * core.rowFactor * core.columnFactor, columns: core.rightBond))
    }
    var right = [Matrix<Scalar>.identity(1)]
    for core in cores[(centre + 1)...].reversed() {
      let last = right[right.count - 1]
      right.append(
        (core.leftUnfolding * last).reshaped(
          rows: core.leftBond, columns: core.rowFactor * core.columnFactor * last.columns))
    }
    let (leftBasis, rightBasis) = (left[left.count - 1], right[right.count - 1])
    let central = cores[centre]
    let inner = (central.leftUnfolding * rightBasis).reshaped(rows: central.leftBond, columns: order.restSize)

    if evaluations.isMultiple(of: 5) {
      preconditioner = CorePreconditioner(cores: cores, centre: centre, left: left, right: right, inner: inner)
    }
    evaluations += 1

    // A = −G D S with D = W − Ŵ, in site order; ∂f/∂Ŵ = 2 A.
    var difference = target
    let approximation = order.matrix(leftBasis * inner)
    difference.subtract(approximation)
    let weighted = metric.applied(to: difference)
    let value = difference.dot(weighted)
    let slope = order.tensor(of: weighted).scaled(by: -2)

    // Gradients of the two bases and the central core, then of the cores inside the bases.
    let projected = leftBasis.transposed() * slope
    let unfolded = projected.reshaped(rows: projected.elements.count / rightBasis.columns, columns: rightBasis.columns)
    let centralGradient = unfolded * rightBasis.transposed()
    var leftGradients: [[Scalar]] = []
    var basisGradient = slope * inner.transposed()
    for index in (0..<centre).reversed() {
      let core = cores[index]
      let before = left[index]
      let gradient = basisGradient.reshaped(
        rows: before.rows, columns: core.rowFactor * core.columnFactor * core.rightBond)
      leftGradients.append((before.transposed() * gradient).elements)
      basisGradient = gradient * core.rightUnfolding.transposed()
    }
    var rightGradients: [[Scalar]] = []
    basisGradient = central.leftUnfolding.transposed() * unfolded
    for (index, core) in zip((0..<(right.count - 1)).reversed(), cores[(centre + 1)...]) {
      let after = right[index]
      let gradient = basisGradient.reshaped(
        rows: core.leftBond * core.rowFactor * core.columnFactor, columns: after.columns)
      rightGradients.append((gradient * after.transposed()).elements)
      basisGradient = core.leftUnfolding.transposed() * gradient
    }
    let gradient = leftGradients.reversed().flatMap(\.self) + centralGradient.elements + rightGradients.flatMap(\.self)
    return (value, gradient)
  }
}

extension SiteOrder {
  /// The matrix of a whole tensor in site order, `[leftSize, restSize]`.
  fileprivate func matrix<Scalar>(_ tensor: Matrix<Scalar>) -> Matrix<Scalar> {
    Matrix(rows: rows, columns: columns) { target in
      tensor.elements.withUnsafeBufferPointer {
        scatter(whole, from: $0.baseAddress!, into: target.baseAddress!)
      }
    }
  }

  fileprivate func tensor<Scalar>(of matrix: Matrix<Scalar>) -> Matrix<Scalar> {
    matrix.withView { tensor(of: $0) }
  }
}

extension Matrix {
  fileprivate func dot(_ other: Matrix) -> Double {
    elements.withUnsafeBufferPointer { a in other.elements.withUnsafeBufferPointer { Scalar.dot(a, $0) } }
  }

  fileprivate func scaled(by factor: Scalar) -> Matrix {
    var result = Matrix(rows: rows, columns: columns, elements: Array(repeating: 0, count: elements.count))
    result.elements.withUnsafeMutableBufferPointer { y in
      elements.withUnsafeBufferPointer { x in
        Scalar.add(factor, times: x.baseAddress!, to: y.baseAddress!, count: x.count)
      }
    }
    return result
  }
}
