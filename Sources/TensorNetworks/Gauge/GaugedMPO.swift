import LinearAlgebra

/// An operator in a gauge, as it is stored.
public struct GaugedMPO<Scalar: LinearAlgebraScalar>: Sendable, Equatable {
  /// The gauge that the cores are in.
  public let gauge: Gauge
  /// The whole cores. In the gauge `compact` the pivot rows of the cores left of the centre, as matrices `[d·i·j, d']`, and
  /// the pivot columns of those right of it, as matrices `[d, i·j·d']`, are exactly the identity.
  public let mpo: MPO<Scalar>
  /// In the gauge `compact` the pivots of each auxiliary core, ascending: the c-th pivot row has the 1 in column c, the c-th
  /// pivot column in row c. nil for the central core, and in the other gauges.
  public let pivots: [[Int]?]
  /// In the gauge `spectral` the singular values at the bond `shape.centralBond`, largest first, and `mpo` alone is *not* the
  /// operator; nil in the other gauges.
  public let singularValues: [Double]?

  /// - Precondition: pivots and singular values are those of the gauge, and fit the cores.
  public init(gauge: Gauge, mpo: MPO<Scalar>, pivots: [[Int]?]? = nil, singularValues: [Double]? = nil) {
    let pivots = pivots ?? Array(repeating: nil, count: mpo.cores.count)
    precondition(pivots.count == mpo.cores.count)
    for (index, pivots) in pivots.enumerated() {
      precondition((pivots != nil) == (gauge == .compact && index != mpo.shape.centralIndex))
    }
    precondition((singularValues != nil) == (gauge == .spectral))
    precondition(singularValues.map { $0.count == mpo.bonds[mpo.shape.centralBond] } ?? true)
    self.gauge = gauge
    self.mpo = mpo
    self.pivots = pivots
    self.singularValues = singularValues
  }

  /// The operator: the singular values, if they are apart, multiplied into the central core.
  public var absorbed: MPO<Scalar> {
    guard let singularValues else { return mpo }
    let centre = mpo.shape.centralIndex
    let central = mpo.cores[centre]
    let values = singularValues.map { Scalar($0) }
    let isLeft = centre > 0
    let scaled =
      isLeft ? central.rightUnfolding.scaled(rowsBy: values) : central.leftUnfolding.scaled(columnsBy: values)
    var cores = mpo.cores
    cores[centre] = MPOCore(shape: central.shape, elements: scaled.elements)
    return MPO(shape: mpo.shape, cores: cores)
  }

  /// The numbers stored: those of all cores without the pivots, and the singular values.
  public var storedCount: Int { mpo.shape.storedCount(bonds: mpo.bonds, gauge: gauge) }
}
