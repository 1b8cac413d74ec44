import LinearAlgebra

/// The coordinates of one side of a matrix, of size n, in which its chain is computed: the side of `W = U_r D_r C D_c U_cᵀ`
/// with an orthogonal matrix `U` and a diagonal `D`.
///
/// Where `U` holds the eigenvectors of the side's second moment in falling order and `D` the reciprocal roots of its
/// eigenvalues, the metric of `W` is the Frobenius norm of `C`, and the leading digits of an index carry the energy.
public struct Basis: Sendable, Equatable {
  /// `U`.
  public enum Rotation: Sendable, Equatable {
    /// `U = 1`: the coordinates are the rows or columns themselves.
    case identity
    /// `[n, n]`, orthogonal.
    case orthogonal(Matrix<Double>)
    /// Integers p: row a of `U C` is row `p[a]` of `C`.
    case permutation([Int])
  }

  /// The orthogonal matrix `U`.
  public let rotation: Rotation
  /// The diagonal of `D`, positive; nil for the identity.
  public let scale: [Double]?

  /// The coordinates of the matrix as it is: `U = 1`, `D = 1`.
  public static let identity = Basis(rotation: .identity, scale: nil)

  /// A basis of a rotation `U` and the diagonal of `D`, `[n]`; nil for `D = 1`.
  public init(rotation: Rotation, scale: [Double]?) {
    self.rotation = rotation
    self.scale = scale
  }

  /// `U D M`: from the coordinates to the rows of a matrix.
  public func applied<Scalar>(to matrix: Matrix<Scalar>) -> Matrix<Scalar> {
    let scaled = scale.map { matrix.scaled(rowsBy: $0.map { Scalar($0) }) } ?? matrix
    switch rotation {
    case .identity: return scaled
    case .orthogonal(let vectors): return vectors.converted(to: Scalar.self) * scaled
    case .permutation(let places): return scaled.selecting(rows: places)
    }
  }

  /// `D⁻¹ Uᵀ M`: the rows of a matrix in the coordinates.
  public func coordinates<Scalar>(of matrix: Matrix<Scalar>) -> Matrix<Scalar> {
    let turned =
      switch rotation {
      case .identity: matrix
      case .orthogonal(let vectors): vectors.transposed().converted(to: Scalar.self) * matrix
      case .permutation(let places): matrix.selecting(rows: places.inverted)
      }
    return scale.map { turned.scaled(rowsBy: $0.map { Scalar(1 / $0) }) } ?? turned
  }

  /// `D Uᵀ A U D`: the weight of the coordinates for a side of a metric with the weight `A`.
  public func coordinates(of side: Metric.Side) -> Metric.Side {
    if rotation == .identity, scale == nil { return side }
    switch (side, rotation) {
    case (.identity, .permutation), (.identity, .identity), (.identity, .orthogonal):
      return scale.map { .diagonal($0.map { $0 * $0 }) } ?? .identity
    case (.diagonal(let values), .permutation), (.diagonal(let values), .identity):
      var turned = values
      if case .permutation(let places) = rotation { turned = places.inverted.map { values[$0] } }
      return .diagonal(scale.map { zip(turned, $0).map { $0 * $1 * $1 } } ?? turned)
    case (.diagonal(let values), .orthogonal):
      var matrix = Matrix<Double>(
        rows: values.count, columns: values.count, elements: .zeros(values.count * values.count))
      for (index, value) in values.enumerated() { matrix[index, index] = value }
      return coordinates(of: .full(matrix))
    case (.full(let matrix), _):
      var turned = Basis(rotation: rotation, scale: nil).coordinates(of: matrix).transposed()
      turned = Basis(rotation: rotation, scale: nil).coordinates(of: turned)
      return .full(scale.map { turned.scaled(rowsBy: $0).scaled(columnsBy: $0) } ?? turned)
    }
  }

  /// The basis of a rotation whose coordinates have the weight 1 on the diagonal of a side of a metric; coordinates without
  /// weight get that of the smallest part of the mean that is told from rounding.
  public static func normalizing(_ side: Metric.Side, in rotation: Rotation) -> Basis {
    let diagonal = Basis(rotation: rotation, scale: nil).diagonal(of: side)
    guard side != .identity else { return Basis(rotation: rotation, scale: nil) }
    let mean = diagonal.reduce(0, +) / Double(max(1, diagonal.count))
    guard mean > 0 else { return Basis(rotation: rotation, scale: nil) }
    return Basis(rotation: rotation, scale: diagonal.map { 1 / max($0, 1e-12 * mean).squareRoot() })
  }

  /// The diagonal of `Uᵀ A U`.
  public func diagonal(of side: Metric.Side) -> [Double] {
    switch Basis(rotation: rotation, scale: nil).coordinates(of: side) {
    case .identity:
      switch rotation {
      case .orthogonal(let vectors): Array(repeating: 1, count: vectors.rows)
      case .permutation(let places): Array(repeating: 1, count: places.count)
      case .identity: []
      }
    case .diagonal(let values): values
    case .full(let matrix): (0..<matrix.rows).map { matrix[$0, $0] }
    }
  }
}

extension Basis.Rotation {
  /// The eigenvectors of a second moment, largest eigenvalue first. O(n³).
  /// - Throws: `LinearAlgebraError`.
  public init(eigenvectorsOf moment: Matrix<Double>) throws {
    self = .orthogonal(try SymmetricEigendecomposition(of: moment).vectors.transposed())
  }

  /// The order of falling values; equal ones stay in their order.
  public init(sorting values: [Double]) {
    let order = values.indices.sorted { (values[$1], $0) < (values[$0], $1) }
    self = .permutation(order.inverted)
  }
}

extension MatrixView {
  /// `D_r⁻¹ U_rᵀ W U_c D_c⁻¹`: what becomes a chain.
  public func coordinates(rows: Basis, columns: Basis) -> Matrix<Scalar> {
    let matrix = rows.coordinates(of: Matrix(rows: self.rows, columns: self.columns, elements: Array(elements)))
    return columns == .identity ? matrix : columns.coordinates(of: matrix.transposed()).transposed()
  }
}

extension Matrix {
  /// `U_r D_r C D_c U_cᵀ` of this matrix.
  public func applying(rows: Basis, columns: Basis) -> Matrix {
    let matrix = rows.applied(to: self)
    return columns == .identity ? matrix : columns.applied(to: matrix.transposed()).transposed()
  }
}

extension Metric {
  /// The metric of the coordinates of a matrix. Weights of elements have no sides: they stay as they are.
  public func coordinates(rows: Basis, columns: Basis) -> Metric {
    switch self {
    case .frobenius: Metric(rows: rows.coordinates(of: .identity), columns: columns.coordinates(of: .identity))
    case .sides(let rowSide, let columnSide):
      Metric(rows: rows.coordinates(of: rowSide), columns: columns.coordinates(of: columnSide))
    case .elements: self
    }
  }
}

extension [Int] {
  /// The inverse of a permutation.
  fileprivate var inverted: [Int] {
    var result = self
    for (place, index) in enumerated() { result[index] = place }
    return result
  }
}

extension [Double] {
  fileprivate static func zeros(_ count: Int) -> [Double] { Array(repeating: 0, count: count) }
}
